"""The stages: machine learning, one folder each. The engine starts them by dotted name."""
