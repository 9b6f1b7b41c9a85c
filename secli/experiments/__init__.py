"""Many runs from one file: what a sweep holds, how it is carried out, by whom, and what is left to do."""
