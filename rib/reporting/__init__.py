"""Tables, figures and report files made from finished runs.

Imports runs and what stands below it; scoring, training, sweeps and studies may import it.
"""
