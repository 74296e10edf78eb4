"""Datasets: what they are (`catalog`), how outputs become classes (`labels`), what lies on disk (`images`)."""
