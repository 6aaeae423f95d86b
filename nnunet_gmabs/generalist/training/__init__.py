"""How the embedded generalist is trained: scenes drawn in code, priors with a specialist's errors, samples."""
