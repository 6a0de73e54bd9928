"""What a run shows and records about itself."""
