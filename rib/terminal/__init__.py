"""Pages that ``rib`` shows at a terminal: options, methods, models and versions.

Commands may import it; it imports packages up to `rib.runs`, and torch or timm only where a page needs them.
"""
