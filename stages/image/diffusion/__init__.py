"""Diffusion: a network that removes noise, applied step by step, from pure noise to images."""
