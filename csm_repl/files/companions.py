"""Where the files lie on the hub that a model may leave to others."""

__all__ = ["MIMI_FILE", "MIMI_REPO", "TOKENIZER_MIRROR"]

MIMI_REPO = "kyutai/moshiko-pytorch-bf16"
MIMI_FILE = "tokenizer-e351c8d8-checkpoint125.safetensors"
TOKENIZER_MIRROR = "unsloth/Llama-3.2-1B"
