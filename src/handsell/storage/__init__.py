"""Object storage of a deployment: objects below one URI, and the files of the state folder that are published there."""
