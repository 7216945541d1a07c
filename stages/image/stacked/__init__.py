"""Stacked digits: three grey images as the red, green and blue of one, so that there are as many modes as triples of classes."""
