"""Code that publishing, pushing and pulling share."""
