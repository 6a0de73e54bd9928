"""Text as it is said: what is written in signs, in words; see docs/normalisation.md for the rules."""

from csm_repl.text.normalise.engine import Normalised, Replacement, normalise

__all__ = ["Normalised", "Replacement", "normalise"]
