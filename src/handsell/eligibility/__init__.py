"""Which items may be recommended: one mask for candidates, labels and evaluation alike."""
