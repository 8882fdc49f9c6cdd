"""From a study's file to the runs it asks for: reading and checking it, expanding its grid, naming runs by content."""
