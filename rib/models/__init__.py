"""Pretrained models: find and load their weights, build their networks, read their features.

Imports data, runtime, errors and `rib.config.schema`, never metrics; methods and everything above may import it.
"""
