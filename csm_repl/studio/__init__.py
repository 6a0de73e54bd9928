"""The application without a front end."""

from csm_repl.studio.load import open_studio, open_voices
from csm_repl.studio.metadata import ModelInfo, max_seconds_text
from csm_repl.studio.studio import Studio

__all__ = ["ModelInfo", "Studio", "max_seconds_text", "open_studio", "open_voices"]
