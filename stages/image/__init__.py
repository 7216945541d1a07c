"""The image wing: five families of generative models on one data grid, under one budget."""
