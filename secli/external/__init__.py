"""External networks: loaded, probed, and wrapped as models."""
