"""GAN: a generator and a discriminator play against each other; R3GAN's relativistic game, or the classic one."""
