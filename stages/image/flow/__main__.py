"""Run this stage alone: `python -m stages.image.flow --help`."""

from pipeline.contract import stage_main

if __name__ == "__main__":
    stage_main(__package__)
