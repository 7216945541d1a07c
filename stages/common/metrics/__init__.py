"""Local `evaluate` modules, one metric per file: each loads with `evaluate.load("stages/common/metrics/NAME.py")`, offline.

`evaluate.load` copies one file and takes its first metric class, so a file imports libraries only.
"""
