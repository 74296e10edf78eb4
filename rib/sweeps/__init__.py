"""Commands over many runs: grids, searches, Hydra multiruns and rescoring, with their expected cost.

Imports the pipeline and the layers below it; studies and commands may import it.
"""
