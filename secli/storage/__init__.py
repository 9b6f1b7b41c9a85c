"""Writing of all files: whole or absent, synced, and cleaned up when the writer is dead."""
