"""The engine that carries out runs on the nodes of a Ray cluster."""
