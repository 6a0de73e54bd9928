"""What is trained on: from the user's clips to batches."""
