"""Discriminative classifier: a small convolutional network that learns p(c | x) and nothing of what images look like."""
