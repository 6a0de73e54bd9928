"""The application without a front end."""

from csm_repl.studio.metadata import max_seconds_text
from csm_repl.studio.open import open_studio, open_voices
from csm_repl.studio.studio import Studio

__all__ = ["Studio", "max_seconds_text", "open_studio", "open_voices"]
