"""What codec, model and training all need to know of a model's files. Without torch."""

from csm_repl.files.config import read_config
from csm_repl.files.published import MIMI_FILE, MIMI_REPO

__all__ = ["MIMI_FILE", "MIMI_REPO", "read_config"]
