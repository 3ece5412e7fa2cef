"""Re-ranking: from the 50 best candidates to a slate that is varied, spaced and explained."""
