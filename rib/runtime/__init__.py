"""Console output, progress, files, locks, processes and memory.

Imports only `rib.errors` and `rib.schemas` of rib; every other package may import it.
"""
