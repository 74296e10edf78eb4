"""From a pretrained model to fine-tuned or merged weights.

Imports scoring and what stands below it, never analysis; the pipeline and sweeps may import it.
"""
