"""secli measures how well vision networks keep their promise under change of scale."""
