"""A candidate index cut into shards: item i is row i // S of shard i mod S."""
