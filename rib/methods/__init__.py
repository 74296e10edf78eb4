"""Fine-tuning methods, one file each, as Lightning callbacks.

Imports models, metrics, data and runtime, nothing of training; config and everything above may import it.
"""
