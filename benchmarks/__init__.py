"""Measurements of speed: each compares two sides in one run and prints rows for BENCHMARKS.md; none asserts."""
