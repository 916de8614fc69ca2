"""What runs a command stage: its process, the folder it runs in, and the metrics it tells."""
