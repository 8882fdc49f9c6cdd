"""Pictures of the theory."""
