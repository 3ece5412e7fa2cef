"""HTTP interfaces of other systems, whose clients may go on calling: Gorse's API, and events in the format of UBI."""
