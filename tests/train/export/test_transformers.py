"""The folder in transformers' layout: transformers loads all of it and speaks as our engine does."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from csm_repl.codec import MimiCodec
from csm_repl.codec.mimi import published_config
from csm_repl.codec.mimi_names import mimi_config, mimi_state, moshi_config
from csm_repl.engine import Engine, build_prompt, spoken_text
from csm_repl.errors import CheckpointError
from csm_repl.files.checkpoint import find_checkpoint
from csm_repl.files.config import parse_config
from csm_repl.files.hub import ModelFiles, find_model
from csm_repl.loaded import open_codec
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.model.weights.convert import load_csm
from csm_repl.model.weights.published import read_published
from csm_repl.train.data.batches import Batch
from csm_repl.train.export.companions import companions
from csm_repl.train.export.original import write_original
from csm_repl.train.export.transformers import write_transformers
from csm_repl.train.learn.initialise import new_network
from csm_repl.train.learn.loss import frame_losses
from csm_repl.train.learn.network import TrainableCSM
from tests.support.train_clips import FLAVORS, GREEDY, load_engine
from tools.random_checkpoint import random_mimi_state, tiny_mimi_config, write_tokenizer

CPU = torch.device("cpu")
# Every code that the tiny Mimi gives must be one of the model's.
HEARING = {**FLAVORS, "audio_vocab_size": 2051}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass
class Exported:
    network: TrainableCSM
    base: ModelFiles
    folder: Path
    notice: str | None

    @property
    def codec(self) -> MimiCodec:
        config = json.loads((self.base.folder / "codec.json").read_text())["config"]
        assert self.base.codec is not None
        return MimiCodec.load(self.base.codec, n_codebooks=5, device=CPU, config=config)

    @property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer(self.base.tokenizer, vocab_size=300)

    def model(self) -> Any:
        from transformers import CsmForConditionalGeneration

        model, info = CsmForConditionalGeneration.from_pretrained(
            self.folder, dtype=torch.float32, output_loading_info=True
        )
        assert not info["unexpected_keys"]
        assert not info["missing_keys"]
        assert not info["mismatched_keys"]
        return model.eval()

    def processor(self) -> Any:
        from transformers import AutoProcessor

        return AutoProcessor.from_pretrained(self.folder)


def spread(network: TrainableCSM) -> None:
    """Random weights whose likeliest codes are told apart by more than rounding."""
    with torch.no_grad():
        network.codebook0_head.weight.mul_(30)
        network.audio_head.mul_(30)
        network.audio_embeddings.weight.mul_(3)
        # transformers' codec has no row for the codes beyond Mimi's.
        network.codebook0_head.weight[2048:] = 0.0
        network.audio_head[..., 2048:] = 0.0


def write_base(folder: Path, network: TrainableCSM, *, codec_codebooks: int = 8) -> ModelFiles:
    write_original(folder, network.state_dict(), network.config, dtype=torch.float32)
    write_tokenizer(folder)
    sizes = tiny_mimi_config(codec_codebooks)
    (folder / "codec.json").write_text(json.dumps({"codec": "mimi", "config": sizes}))
    save_file(random_mimi_state(sizes, seed=0), folder / "mimi.safetensors")
    return find_model(str(folder), offline=True)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    network = new_network(parse_config(HEARING, source="flavors"), seed=0, device=CPU).eval()
    spread(network)
    root = tmp_path_factory.mktemp("export")
    base = write_base(root / "base", network)
    notice = write_transformers(root / "out", network.state_dict(), network.config, base, dtype=torch.float32)
    return Exported(network, base, root / "out", notice)


@pytest.fixture(scope="module")
def loaded(exported: Exported) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return exported.model()


def clip_samples(seed: int, n_samples: int) -> torch.Tensor:
    return torch.randn(n_samples, generator=torch.Generator().manual_seed(seed))


# --- the codec ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mimi() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    sizes = tiny_mimi_config(8)
    return sizes, random_mimi_state(sizes, seed=0)


@pytest.mark.parametrize("n_codebooks", [8, 5])
def test_transformers_mimi_gives_moshis_codes_and_sound(
    mimi: tuple[dict[str, Any], dict[str, torch.Tensor]], n_codebooks: int, tmp_path: Path
) -> None:
    from transformers import MimiConfig, MimiModel

    sizes, state = mimi
    save_file(state, tmp_path / "mimi.safetensors")
    ours = MimiCodec.load(tmp_path / "mimi.safetensors", n_codebooks=n_codebooks, device=CPU, config=sizes)
    with torch.random.fork_rng(devices=[]):
        theirs = MimiModel(MimiConfig(**mimi_config(sizes, n_codebooks=n_codebooks))).eval()
    theirs.load_state_dict(mimi_state(state, sizes, n_codebooks=n_codebooks), strict=True)
    samples = clip_samples(0, 1920 * 20)
    codes = ours.encode(samples)
    with torch.no_grad():
        assert torch.equal(theirs.encode(samples[None, None]).audio_codes[0], codes)
        decoded = theirs.decode(codes[None]).audio_values[0, 0]
    torch.testing.assert_close(decoded, ours.decode(codes), rtol=1e-4, atol=1e-5)


def test_a_mimi_in_transformers_names_is_the_same_mimi(
    mimi: tuple[dict[str, Any], dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    sizes, state = mimi
    save_file(state, tmp_path / "mimi.safetensors")
    ours = MimiCodec.load(tmp_path / "mimi.safetensors", n_codebooks=5, device=CPU, config=sizes)
    theirs = mimi_state(state, sizes, n_codebooks=5)
    inside = MimiCodec.load_inside(
        tmp_path, theirs.__getitem__, mimi_config(sizes, n_codebooks=5), n_codebooks=5, device=CPU
    )
    samples = clip_samples(1, 1920 * 20)
    assert torch.equal(inside.encode(samples), ours.encode(samples))
    assert torch.equal(inside.decode(ours.encode(samples)), ours.decode(ours.encode(samples)))
    assert inside.id != ours.id


def test_kyutais_sizes_survive_the_way_there_and_back() -> None:
    published = published_config()
    assert moshi_config(mimi_config(published, n_codebooks=32), published) == published
    assert moshi_config({}, published) == published


def test_kyutais_own_names_are_known(mimi: tuple[dict[str, Any], dict[str, torch.Tensor]]) -> None:
    sizes, state = mimi
    published = {
        name.replace("in_projs.0.weight", "in_proj_weight").replace("out_projs.0", "out_proj"): tensor
        for name, tensor in state.items()
    }
    assert set(published) != set(state)
    expected = mimi_state(state, sizes, n_codebooks=8)
    found = mimi_state(published, sizes, n_codebooks=8)
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_what_is_no_mimi_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"head\.weight"):
        mimi_state({"head.weight": torch.zeros(1)}, tiny_mimi_config(8), n_codebooks=8)


@pytest.mark.parametrize("sharded", [False, True])
def test_a_folder_with_the_codec_inside_needs_nothing_else(
    exported: Exported, tmp_path: Path, sharded: bool
) -> None:
    folder = tmp_path / "model"
    exported_model = exported.model()
    exported_model.save_pretrained(folder, max_shard_size="300KB" if sharded else "5GB")
    shutil.copy(exported.base.tokenizer, folder / "tokenizer.json")
    assert (folder / "model.safetensors.index.json").exists() == sharded
    assert not list(folder.glob("mimi*"))
    files = find_model(str(folder), offline=True)
    assert files.codec is None
    codec = open_codec(files, find_checkpoint(folder).config, CPU)
    samples = clip_samples(2, 1920 * 20)
    assert torch.equal(codec.encode(samples), exported.codec.encode(samples))
    # And what is trained on it can be written in that layout again.
    state = exported.network.state_dict()
    write_transformers(tmp_path / "again", state, exported.network.config, files, dtype=torch.float32)
    again = find_model(str(tmp_path / "again"), offline=True)
    assert torch.equal(
        open_codec(again, exported.network.config, CPU).encode(samples), exported.codec.encode(samples)
    )


# --- the model ----------------------------------------------------------------------------------------


def test_nothing_needs_to_be_said_about_a_mimi(exported: Exported) -> None:
    assert exported.notice is None


@pytest.mark.parametrize("text", ["hello there", "A much longer sentence, with more of everything!"])
def test_transformers_speaks_the_engines_frames(exported: Exported, loaded: Any, text: str) -> None:
    inputs = exported.processor()(
        f"<|begin_of_text|>[1]{text}<|end_of_text|>", return_tensors="pt", add_special_tokens=False
    )
    theirs = loaded.generate(
        **inputs, do_sample=False, depth_decoder_do_sample=False, max_new_tokens=12, output_audio=False
    )
    ids = exported.tokenizer.encode(spoken_text(1, text))
    assert inputs["input_ids"][0].tolist() == list(ids)
    take = load_engine(exported.folder).generate(build_prompt([], ids, 5), options=GREEDY, max_frames=12)
    frames = torch.stack(list(take))
    assert len(set(frames.flatten().tolist())) > 20
    assert torch.equal(theirs[0], frames)


def test_transformers_hears_the_context_as_the_engine_does(exported: Exported, loaded: Any) -> None:
    samples = clip_samples(3, 1920 * 6)
    conversation = [
        {
            "role": "0",
            "content": [{"type": "text", "text": "first"}, {"type": "audio", "path": samples.numpy()}],
        },
        {"role": "1", "content": [{"type": "text", "text": "second"}]},
    ]
    inputs = exported.processor().apply_chat_template(conversation, tokenize=True, return_dict=True)
    theirs = loaded.generate(
        **inputs, do_sample=False, depth_decoder_do_sample=False, max_new_tokens=10, output_audio=False
    )
    encode = exported.tokenizer.encode
    context = [(encode(spoken_text(0, "first")), exported.codec.encode(samples))]
    tokens = build_prompt(context, encode(spoken_text(1, "second")), 5)
    assert inputs["input_ids"].shape[1] == len(tokens)
    for folder in (exported.folder, exported.base.folder):
        take = load_engine(folder).generate(tokens, options=GREEDY, max_frames=10)
        assert torch.equal(theirs[0], torch.stack(list(take)))


def test_transformers_makes_the_codecs_sound(exported: Exported, loaded: Any) -> None:
    inputs = exported.processor()(
        "<|begin_of_text|>[0]hi<|end_of_text|>", return_tensors="pt", add_special_tokens=False
    )
    made = loaded.generate(
        **inputs, do_sample=False, depth_decoder_do_sample=False, max_new_tokens=8, output_audio=True
    )
    take = load_engine(exported.folder).generate(
        build_prompt([], exported.tokenizer.encode("[0]hi"), 5), options=GREEDY, max_frames=8
    )
    sound = exported.codec.decode(torch.stack(list(take)).T)
    torch.testing.assert_close(made[0].flatten(), sound, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_its_loss_with_output_labels_is_ours(exported: Exported, loaded: Any) -> None:
    samples = clip_samples(4, 1920 * 7)
    conversation = [
        {
            "role": "0",
            "content": [{"type": "text", "text": "learn"}, {"type": "audio", "path": samples.numpy()}],
        }
    ]
    inputs = exported.processor().apply_chat_template(
        conversation, tokenize=True, return_dict=True, output_labels=True
    )
    theirs = loaded(**inputs)
    codes = exported.codec.encode(samples)
    tokens = build_prompt([(exported.tokenizer.encode("[0]learn"), codes)], [], 5)
    batch = Batch(tokens[None], tokens[None, :, 0] >= 0, *torch.zeros(2, 1, len(tokens), dtype=torch.int64))
    ours = frame_losses(exported.network, batch, torch.arange(batch.n_targets))
    assert ours.n_frames == 7 + 1
    assert float(ours.backbone) == pytest.approx(float(theirs.backbone_loss), rel=1e-4)
    assert float(ours.depth) == pytest.approx(float(theirs.depth_decoder_loss), rel=1e-4)


def test_our_engine_loads_it_with_its_own_tokenizer_and_codec(exported: Exported) -> None:
    files = find_model(str(exported.folder), offline=True)
    assert files.tokenizer.parent == files.codec.parent == exported.folder
    found = find_checkpoint(exported.folder)
    assert found.layout == "transformers"
    tokenizer = Tokenizer(files.tokenizer, vocab_size=found.config.text_vocab_size)
    for text in ("[0]plain words", "[1]<|AUDIO|> is only text here"):
        assert tokenizer.encode(text) == exported.tokenizer.encode(text)


def test_the_weights_are_exact(exported: Exported) -> None:
    again = read_published(find_checkpoint(exported.folder))
    state = exported.network.state_dict()
    assert set(again) == set(state)
    assert all(torch.equal(again[name], state[name]) for name in state)


def test_the_model_config_survives_but_for_how_rope_is_written(exported: Exported) -> None:
    config, again = exported.network.config, find_checkpoint(exported.folder).config
    plain = config.backbone.rope
    assert replace(again.backbone, rope=plain) == config.backbone
    # transformers keeps no length for the depth decoder beyond a frame.
    assert replace(again.decoder, rope=plain, max_positions=64) == config.decoder


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_untied_embeddings_are_written_apart(tmp_path: Path, dtype: torch.dtype) -> None:
    config = replace(parse_config(FLAVORS, source="flavors"), tied_audio_embeddings=False)
    network = new_network(config, seed=0, device=CPU)
    # The base only lends tokenizer and codec.
    tied = new_network(parse_config(FLAVORS, source="flavors"), seed=0, device=CPU)
    base = write_base(tmp_path / "base", tied)
    write_transformers(tmp_path / "out", network.state_dict(), config, base, dtype=dtype)
    again = read_published(find_checkpoint(tmp_path / "out"))
    assert all(torch.equal(again[name], t.to(dtype)) for name, t in network.state_dict().items())


# --- what is not Mimi, and tokenizers without room ----------------------------------------------------


def test_another_codec_stays_behind_and_that_is_said(new: Callable[[], TrainableCSM], tmp_path: Path) -> None:
    network = new().eval()
    spread(network)
    base = write_base(tmp_path / "base", network)
    (base.folder / "codec.json").write_text(json.dumps({"codec": "istft", "config": {}}))
    (base.folder / "mimi.safetensors").rename(base.folder / "codec.safetensors")
    base = replace(base, codec=base.folder / "codec.safetensors")
    notice = write_transformers(
        tmp_path / "out", network.state_dict(), network.config, base, dtype=torch.float32
    )
    assert notice is not None
    assert "'istft'" in notice
    for name in ("codec.json", "codec.safetensors"):
        assert (tmp_path / "out" / name).is_file(), "csm-repl needs it"
    from transformers import AutoProcessor, CsmForConditionalGeneration

    with torch.random.fork_rng(devices=[]):
        model = CsmForConditionalGeneration.from_pretrained(tmp_path / "out", dtype=torch.float32)
    inputs = AutoProcessor.from_pretrained(tmp_path / "out")(
        "<|begin_of_text|>[0]hi<|end_of_text|>", return_tensors="pt", add_special_tokens=False
    )
    theirs = model.generate(**inputs, do_sample=False, depth_decoder_do_sample=False, max_new_tokens=6)
    tokens = build_prompt([], inputs["input_ids"][0].tolist(), 5)
    take = load_engine(tmp_path / "out").generate(tokens, options=GREEDY, max_frames=6)
    assert torch.equal(theirs[0], torch.stack(list(take)))


def test_a_full_table_of_words_gets_two_more_rows(tmp_path: Path) -> None:
    # Bytes, BOS and EOS: 258 ids, and not one to spare.
    flavors = {**FLAVORS, "text_vocab_size": 258}
    network = new_network(parse_config(flavors, source="flavors"), seed=0, device=CPU)
    base = write_base(tmp_path / "base", network)
    write_transformers(tmp_path / "out", network.state_dict(), network.config, base, dtype=torch.float32)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["audio_token_id"], config["audio_eos_token_id"]) == (258, 259)
    assert config["text_vocab_size"] == 260
    model = load_csm(find_checkpoint(tmp_path / "out"), device=CPU, dtype=torch.float32)
    assert torch.equal(model.text_embeddings[:258], network.text_embeddings.weight)
    assert Engine(model).max_positions == 256


def test_llamas_reserved_tokens_become_the_audio_tokens(
    new: Callable[[], TrainableCSM], tmp_path: Path
) -> None:
    network = new()
    base = write_base(tmp_path / "base", network)
    content = json.loads(base.tokenizer.read_text())
    pattern = content["added_tokens"][-1]
    for number in range(2):
        name = f"<|reserved_special_token_{number}|>"
        content["added_tokens"].append({**pattern, "id": 258 + number, "content": name})
    base.tokenizer.write_text(json.dumps(content))
    write_transformers(tmp_path / "out", network.state_dict(), network.config, base)
    written = json.loads((tmp_path / "out" / "tokenizer.json").read_text())
    names = {token["content"]: token["id"] for token in written["added_tokens"]}
    assert names["<|AUDIO|>"] == 258
    assert names["<|audio_eos|>"] == 259
    assert not [name for name in names if "reserved" in name]
    assert len(load_file(tmp_path / "out" / "model.safetensors")["embed_text_tokens.weight"]) == 300


def test_companions_do_not_undo_the_tokenizer(exported: Exported) -> None:
    assert "tokenizer.json" in companions(exported.base.folder)
    names = (exported.folder / "tokenizer.json").read_text()
    assert "<|AUDIO|>" in names
