"""Scale equivariance while a network trains in the loops of other libraries: ``lightning`` and ``transformers``."""
