"""What a run leaves to be used: models in either layout, and adapters."""
