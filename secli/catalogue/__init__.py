"""What the registry knows of models and families, as data: nothing here imports torch."""

from secli.catalogue.models import MODELS

__all__ = ["MODELS"]
