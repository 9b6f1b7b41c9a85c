"""A table in each format: one writer per format."""
