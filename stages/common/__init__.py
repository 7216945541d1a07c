"""Code that two or more stages use; it imports no stage."""
