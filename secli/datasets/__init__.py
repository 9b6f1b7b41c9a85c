"""Scale datasets: the published recipes, how they are built, stored and loaded onto a device."""
