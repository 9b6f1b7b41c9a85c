"""How long things take on this machine: each benchmark is one function that returns rows."""
