"""Experiment trackers, off by default: a run's reports in MLflow or TensorBoard."""
