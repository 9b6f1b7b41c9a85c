"""Several replicas of one model, realisations or seeds, trained in one process: at once, or one after the other."""
