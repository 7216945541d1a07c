"""Send an assembled repository to the Hub, prove that it arrived: `python -m stages.release.push FOLDER`.

A program, not a stage.
"""
