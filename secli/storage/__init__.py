"""Everything that is written goes through here: whole or absent, synced, and cleared away when its writer is dead."""
