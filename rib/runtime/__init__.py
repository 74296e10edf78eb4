"""The process and the disk: output, progress, files, locks, processes, memory.

Imports nothing of rib but `rib.errors`; every other package may import it.
"""
