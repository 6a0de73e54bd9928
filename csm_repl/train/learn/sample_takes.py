"""Speaks fixed sentences with the model as it is at a step, through the engine and the codec that users
hear.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from csm_repl.audio import output_error, write_audio
from csm_repl.codec import Codec
from csm_repl.engine import Engine, spoken_text
from csm_repl.files.config import ModelConfig
from csm_repl.files.layouts import ORIGINAL, TRANSFORMERS, recipes
from csm_repl.model.csm import CSM
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.model.weights.published import DEPTH_EMBEDDINGS
from csm_repl.speech import FixedContext, Speech, TurnOver, TurnPiece, TurnRequest
from csm_repl.text import ceiling_seconds
from csm_repl.train.events import Sampled
from csm_repl.train.learn.network import TrainableCSM

__all__ = ["TakeSampler", "speaking_model"]

_SPEAKER = re.compile(r"\[([0-9]{1,3})\](.*)", re.DOTALL)


class TakeSampler:
    """Writes `step-NNNNNN-1.wav`, `-2.wav`, … when it is called.

    Args:
        folder: made when first written to; takes of a step that is done again are replaced.
        texts: each with `[N]` in front for speaker N.
        state: the network's tensors under the original layout's names.
        seed: of the noise, the same in every step, so that takes can be compared.
    """

    def __init__(
        self,
        folder: Path,
        texts: Sequence[str],
        *,
        tokenizer: Tokenizer,
        codec: Codec,
        state: Callable[[TrainableCSM], Mapping[str, torch.Tensor]],
        seed: int,
    ) -> None:
        self._folder = folder
        self._turns = [_turn(text) for text in texts]
        self._tokenizer = tokenizer
        self._codec = codec
        self._state = state
        self._seed = seed

    def __call__(self, network: TrainableCSM, step: int) -> Iterator[Sampled]:
        # On a GPU as users hear it, in half the memory: the network being trained stays where it is.
        dtype = torch.bfloat16 if network.device.type == "cuda" else torch.float32
        model = speaking_model(self._state(network), network.config, dtype)
        speech, context = Speech(Engine(model), self._codec), FixedContext((), network.config.n_codebooks)
        for number, (speaker, text) in enumerate(self._turns, 1):
            ids = self._tokenizer.encode(spoken_text(speaker, text))
            max_frames = max(1, int(ceiling_seconds(text) * self._codec.frame_rate))
            piece = TurnPiece(text, ids, room=context.min_room, max_frames=max_frames)
            request = TurnRequest((piece,), context, seed=self._seed + number)
            [result] = [event.result for event in speech.speak(request) if isinstance(event, TurnOver)]
            path = self._folder / f"step-{step:06d}-{number}.wav"
            samples = result.samples
            if not len(samples):
                samples = torch.zeros(self._codec.samples_per_frame)
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise output_error(self._folder, error) from error
            write_audio(path, samples, self._codec.sample_rate, replace=True)
            yield Sampled(
                step, path, text, len(samples) / self._codec.sample_rate, ended=result.ended == "end"
            )


@torch.no_grad()
def speaking_model(
    state: Mapping[str, torch.Tensor], config: ModelConfig, dtype: torch.dtype = torch.float32
) -> CSM:
    """The engine's model with a copy of these weights, on their device.

    Args:
        state: tensors under the original layout's names.
        config: their sizes.
        dtype: of the copy.
    """
    targets: dict[str, torch.Tensor] = {}
    for recipe in recipes(config, ORIGINAL):
        tensors = [state[part.names[0]].detach().to(dtype, copy=True) for part in recipe.parts]
        targets[recipe.target] = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
    if not config.tied_audio_embeddings:
        [target] = {recipe.target for recipe in recipes(config, TRANSFORMERS)} - targets.keys()
        targets[target] = state[DEPTH_EMBEDDINGS].detach().to(dtype, copy=True)
    model = CSM(config)
    model.load_state_dict(targets, strict=True, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model.prepare()


def _turn(text: str) -> tuple[int, str]:
    match = _SPEAKER.fullmatch(text.strip())
    return (int(match[1]), match[2].strip()) if match else (0, text.strip())
