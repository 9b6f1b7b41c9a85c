"""Experiment trackers, off unless asked for: what a run reports, told to MLflow or TensorBoard."""
