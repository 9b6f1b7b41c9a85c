"""The convolutions, one idea per file, usable without the rest of secli."""
