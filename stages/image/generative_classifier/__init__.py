"""Generative models as classifiers by Bayes' rule, against discriminative ones: labels, calibration, faults, foreign images."""
