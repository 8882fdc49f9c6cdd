"""Where data come from: the catalogue of published files, downloads, archives, local copies, and the cache."""
