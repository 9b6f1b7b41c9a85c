"""Trained networks as folders with their records: listed in an index, verified by sha256, fetched and pushed."""
