"""Objects that `rib.api` returns: a finished run, the runs of a store, and the comparison of two runs.

Only `rib.api` and code above it may import this package.
"""
