"""The HAProxy in front of the gateways of a local cluster, and the process that keeps it running."""
