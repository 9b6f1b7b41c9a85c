"""Quicker ways to the values of the plain layers."""
