"""Classifier: small networks trained on the images, the discriminative models of the wing and the eyes of its metrics."""
