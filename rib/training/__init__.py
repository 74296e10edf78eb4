"""Training: fine-tuned or merged weights from a pretrained model.

Imports scoring and the layers below, never analysis; the pipeline and sweeps may import it.
"""
