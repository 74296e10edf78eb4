"""Robust fine-tuning of pretrained vision models, measured: the ImageNet-RIB benchmark (arXiv 2410.21582)."""

__version__ = "0.1.0"
