"""Scene and Rollouts in, numbers out. Knows no model."""
