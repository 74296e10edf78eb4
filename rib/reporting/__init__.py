"""Tables, figures and report files made from finished runs.

Imports runs and the layers below it; scoring, training, sweeps and studies may import it.
"""
