"""Classic densities: independent pixels, one Gaussian, probabilistic PCA, mixtures of Gaussians; what makes figures readable."""
