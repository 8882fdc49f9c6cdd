"""Two runs, two checkpoints or two arms side by side: what differs, and by how much the one is better."""
