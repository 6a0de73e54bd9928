"""Published weights to parameters."""
