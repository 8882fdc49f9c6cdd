"""State-space models: every channel is convolved with a long kernel that a linear recurrence unrolls."""
