"""Robust fine-tuning of pretrained vision models, measured: the ImageNet-RIB benchmark (arXiv 2410.21582)."""

import sys

__version__ = "0.1.0"

if sys.argv[:1] == ["-m"]:  # python -m rib.COMMAND, before that imports anything
    from rib.runtime import requirements

    requirements.check()
