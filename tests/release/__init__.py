"""Publishing, against a Hub of our own."""
