"""Datasets: their catalog, finding and checking their files, decoding images, and the LightningDataModule.

Imports runtime, errors and `rib.config.schema`; models, metrics, methods and everything above may import it.
"""
