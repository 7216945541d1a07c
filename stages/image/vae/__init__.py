"""Variational autoencoder: an encoder and a decoder that bound the likelihood of an image from below."""
