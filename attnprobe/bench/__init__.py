"""Speed, measured side by side: a correctness gate first, then interleaved rounds against other implementations."""
