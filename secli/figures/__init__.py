"""Figures of equivariance curves, heat maps and features, drawn with matplotlib."""
