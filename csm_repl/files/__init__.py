"""A model's files: where they lie, what their configs say, how their tensors are named. Without torch."""
