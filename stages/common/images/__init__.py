"""What two or more stages of the image wing share: the grid, the training loop, the FLOP ledger, pictures."""
