"""From a data card, or the user's own image files, to images on one integer grid in three splits."""
