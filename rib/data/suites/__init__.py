"""Suites of a user's own data: one YAML file that names domains, classes and roles (`suite=FILE.yaml`)."""
