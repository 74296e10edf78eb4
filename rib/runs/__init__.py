"""What a run is, the keys that name it, where it lies, and how it is measured.

Imports config, data, models, metrics and methods; everything above may import it.
"""
