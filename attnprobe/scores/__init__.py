"""Arithmetic of attention scores, on arrays alone: nothing here knows a model, a loss or a file."""
