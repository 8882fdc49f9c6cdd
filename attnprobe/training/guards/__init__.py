"""What keeps a run from going on with numbers that are none, or from failing without a word of help."""
