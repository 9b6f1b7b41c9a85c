"""Raw pictures: found, downloaded, verified, and read into memory in their published order."""
