"""What the registry knows of models and families, as data: nothing here imports torch."""
