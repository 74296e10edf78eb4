"""Runs: their specs and hash keys, the store that holds them, and the computation of their metrics.

Imports config, data, models, metrics and methods; every layer above may import it.
"""
