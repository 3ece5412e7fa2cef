"""Scale: one result on any number of nodes; time and memory of each step by the number of events."""
