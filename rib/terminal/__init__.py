"""Pages that ``rib`` shows at a terminal: options, methods, models and versions.

Imports packages up to `rib.runs`, and torch or timm only where a page needs them.
"""
