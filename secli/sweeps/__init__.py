"""Many runs from one file: planned, carried out on this machine or a cluster, tabulated."""
