"""Where the files lie on the hub that a model may leave to others."""

__all__ = ["MIMI_FILE", "MIMI_REPO"]

MIMI_REPO = "kyutai/moshiko-pytorch-bf16"
MIMI_FILE = "tokenizer-e351c8d8-checkpoint125.safetensors"
