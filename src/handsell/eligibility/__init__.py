"""Items that may be recommended: one mask for candidates, labels and evaluation."""
