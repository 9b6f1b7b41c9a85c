"""Aggregation, formats, plots and published figures; reads records only and never imports torch."""
