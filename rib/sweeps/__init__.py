"""Many runs: grids, searches, multiruns, rescoring, and what they cost.

Imports the pipeline and what stands below it; studies and commands may import it.
"""
