"""Datasets: what they are, where their images lie, how these are read and served.

Imports runtime, errors and `rib.config.schema`; models, metrics, methods and everything above may import it.
"""
