"""Fetch a published model and check it: `python -m stages.release.pull owner/name[@revision]` (a program, not a stage)."""
