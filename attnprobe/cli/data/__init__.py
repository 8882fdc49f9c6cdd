"""`attnprobe data`."""
