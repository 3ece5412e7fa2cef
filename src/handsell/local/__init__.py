"""Everything on one machine: a local Ray cluster, the steps of `make up`, and views in the terminal."""
