"""Pretrained models: find their weights, build them, look inside them.

Imports data, runtime, errors and `rib.config.schema`, never metrics; methods and everything above may import it.
"""
