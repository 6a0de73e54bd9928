"""How the built-in voice was made: corpus, codec, model, scores. See README.md in this folder."""
