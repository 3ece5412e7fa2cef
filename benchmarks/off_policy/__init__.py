"""Off-policy estimates beside what is known: other logs of the same campaign, random ratings, the world's truth."""
