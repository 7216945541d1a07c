"""Evaluate: how well a causal language model predicts texts, what it writes, and whether it recites its training data."""
