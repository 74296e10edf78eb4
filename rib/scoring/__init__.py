"""From models and images to predictions.

Imports runs and what stands below it; training, analysis, the pipeline and sweeps may import it.
"""
