"""Families of image models side by side: one table, tests of differences and of the course's claims, pictures, a page."""
