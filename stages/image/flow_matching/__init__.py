"""Flow matching: a velocity field, learnt along straight lines, that carries noise to images."""
