"""The network that is trained, and the training of it."""
