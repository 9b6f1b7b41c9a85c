"""Anybody's network: loaded, probed, and put under the contract of a model."""
