"""Records: their schema, and what makes two of them the same."""
