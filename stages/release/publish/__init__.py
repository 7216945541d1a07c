"""Assemble, describe and check what is to be published: `python -m stages.release.publish FOLDER` (a program, not a stage)."""
