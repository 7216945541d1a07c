"""Pretrain: a causal language model from random weights, on packed documents, resumable at any moment.

`python -m stages.text.pretrain --help` lists the parameters; `shape.py` says what follows from `depth`.
"""
