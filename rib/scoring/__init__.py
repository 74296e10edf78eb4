"""Scoring: the predictions of models for the images of datasets.

Imports runs and the layers below; training, analysis, the pipeline and sweeps may import it.
"""
