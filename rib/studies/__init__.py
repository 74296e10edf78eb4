"""Questions put to a grid, one file each: from finished runs to a table, a paragraph and figures.

Imports everything but the commands, which alone may import it.
"""
