"""One self-contained HTML page about runs: sections in their order, each from a file of its own."""
