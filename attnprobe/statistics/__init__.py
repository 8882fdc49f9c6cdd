"""Error bars and nulls, on arrays alone."""
