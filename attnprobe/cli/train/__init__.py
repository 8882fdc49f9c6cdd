"""`attnprobe train`."""
