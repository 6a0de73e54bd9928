"""Text as it is said: what is written in signs, in words; see docs/normalisation.md for the rules."""

from csm_repl.text.normalise.engine import Normalised, Replacement, joined, normalise
from csm_repl.text.normalise.pronounce import PronounceTable, read_table

__all__ = ["Normalised", "PronounceTable", "Replacement", "joined", "normalise", "read_table"]
