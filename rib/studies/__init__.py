"""Studies: each turns the finished runs of a grid into a table, a paragraph and figures.

Imports every layer except the commands, and only commands import it.
"""
