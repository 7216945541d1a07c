"""From a data card, or the user's own files, to clean documents in three splits."""
