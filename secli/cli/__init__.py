"""One thin file per command; the only room that prints."""
