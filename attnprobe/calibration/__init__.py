"""Is every p-value, interval and verdict what it says? Nominal against actual rates, where the truth is known."""
