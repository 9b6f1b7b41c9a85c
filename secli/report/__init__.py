"""One report of many runs: tables, curves, heat maps and provenance as one HTML file, or as markdown with PNGs."""
