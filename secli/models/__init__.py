"""One family of networks per file; the registry is ``secli.catalogue.models``."""
