"""`python -m stages.image.stacked --help`: run this stage alone."""

from pipeline.contract import stage_main

if __name__ == "__main__":
    stage_main(__package__)
