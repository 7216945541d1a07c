"""Normalizing flows: an image is taken to noise by steps that can be undone, so that its density is exact.

`python -m stages.image.flow --help` lists the parameters; `flows.py` has the idea, `transforms.py` the two kinds of step.
"""
