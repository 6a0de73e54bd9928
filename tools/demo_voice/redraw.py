"""The codes that a model would draw for sounds that exist: what the codec's decoder will really be given.

Codebook 0 stays as the codec found it; the model's depth decoder draws the others frame by frame, having
heard the true frames before. So the result says the same at the same time as the sound, and differs from
the codec's own codes as the model's codes do. Each utterance follows another one of its voice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch

from csm_repl.codec import load_codec
from csm_repl.engine import build_prompt, spoken_text
from csm_repl.engine.prompt import segment_positions
from csm_repl.files.checkpoint import find_checkpoint
from csm_repl.files.text_front import open_front
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.train.learn.initialise import load_network

__all__ = ["Heard", "Speaker"]

Heard = tuple[Sequence[int], torch.Tensor]
"""A turn: the text's ids and the codes [K, T]."""


class Speaker:
    """A trained model beside a codec.

    Args:
        model: the model's folder, with config.json, model.safetensors, tokenizer.json and perhaps text.json.
        codec: the codec's folder.
        temperature: of the draws.
    """

    def __init__(self, model: Path, codec: Path, *, temperature: float) -> None:
        checkpoint = find_checkpoint(model)
        config = checkpoint.config
        self.network = load_network(checkpoint, device=torch.device("cpu")).eval()
        self.tokenizer = Tokenizer(
            model / "tokenizer.json", vocab_size=config.text_vocab_size, front=open_front(model)
        )
        self.codec = load_codec(
            codec / "codec.safetensors",
            codec / "codec.json",
            n_codebooks=config.n_codebooks,
            device=torch.device("cpu"),
        )
        sizes = json.loads((codec / "codec.json").read_text())["config"]
        self._n_entries = int(sizes["codebook_size"])
        """The model's vocabulary has a few more, which a trained model does not draw."""
        self._temperature = temperature

    @torch.inference_mode()
    def codes(
        self, texts: Sequence[str], voices: Sequence[str], sounds: Iterable[torch.Tensor]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Args:
            texts: the words of each utterance.
            voices: its voice's name.
            sounds: its samples, float32 [N] at 24 kHz.

        Yields:
            Of each utterance the codec's codes and the model's, both int64 [K, T].
        """
        before: dict[str, Heard] = {}
        for text, voice, sound in zip(texts, voices, sounds, strict=True):
            ids = self.tokenizer.encode(spoken_text(0, text))
            codes = self.codec.encode(sound)
            context = [before[voice]] if voice in before else []
            yield codes, self._redrawn(context, ids, codes)
            before[voice] = ids, codes

    def states_before_frames(
        self, context: list[Heard], ids: Sequence[int], codes: torch.Tensor, *, hears_itself: bool = True
    ) -> torch.Tensor:
        """The backbone's hidden states from which each frame is predicted, [T, D].

        Args:
            context: text ids and codes [K, T] of the turns before.
            ids: of the text that is said.
            codes: int64 [K, T], what is said.
            hears_itself: else codebook 0 alone is heard of what is said.
        """
        prompt = build_prompt(context, ids, len(codes))
        said = segment_positions(ids, codes)
        if not hears_itself:
            said[len(ids) : -1, 1:-1] = -1
        rows = torch.cat([prompt[: len(prompt) - len(ids)], said])
        return self.network.hidden_states(rows[None])[0, len(prompt) - 1 :][: codes.shape[1]]

    def _redrawn(self, context: list[Heard], ids: Sequence[int], codes: torch.Tensor) -> torch.Tensor:
        hidden = self.states_before_frames(context, ids, codes)
        drawn = codes.T.clone()
        for codebook in range(1, len(codes)):
            # Codes from `codebook` on are still the true ones; attention is causal and does not see them.
            logits = self.network.depth_logits(hidden, drawn)[:, codebook - 1, : self._n_entries]
            drawn[:, codebook] = torch.multinomial((logits / self._temperature).softmax(-1), 1)[:, 0]
        return drawn.T
