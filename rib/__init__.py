"""Robust fine-tuning of pretrained vision models, measured with the ImageNet-RIB benchmark (arXiv 2410.21582)."""

import sys

__version__ = "0.1.0"

# argv is ["-m", ...] only while Python looks for the module of `python -m rib.COMMAND`. Packages that are not installed
# are reported here, before the command's own imports would end in a traceback.
if sys.argv[:1] == ["-m"]:
    from rib.runtime import requirements

    requirements.check()
