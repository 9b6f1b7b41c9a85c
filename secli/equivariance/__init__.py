"""The measure: how far Φ(L_s f) is from L_s Φ(f)."""
