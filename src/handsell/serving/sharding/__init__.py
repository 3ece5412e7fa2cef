"""The shards of the candidate index as deployments, and the calls of the candidate stage to them."""
