"""Training: (dataset, model, settings) -> run directory; prints nothing, reports through events."""
