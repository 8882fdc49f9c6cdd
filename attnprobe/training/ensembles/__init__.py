"""Several seeds as one stacked model."""
