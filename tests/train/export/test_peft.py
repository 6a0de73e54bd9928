"""Adapters to and from PEFT itself: the same logits on both sides."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from csm_repl.engine import Engine, build_prompt
from csm_repl.files.adapters import find_adapter
from csm_repl.files.checkpoint import find_checkpoint
from csm_repl.files.config import parse_config
from csm_repl.model.csm import CSM
from csm_repl.model.weights.adapters import read_adapter
from csm_repl.model.weights.convert import load_csm
from csm_repl.train.export.peft import write_peft
from csm_repl.train.export.transformers import write_transformers
from csm_repl.train.learn.initialise import load_network, new_network
from csm_repl.train.learn.lora import add_lora, write_adapter
from csm_repl.train.options import TrainOptions
from tests.train.export.test_transformers import HEARING, spread, write_base

CPU = torch.device("cpu")
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ONLY_LLAMAS = r"(backbone_model|depth_decoder)\..*\.({})"
_CODES = torch.randint(0, 2048, (5, 9), generator=torch.Generator().manual_seed(1))
PROMPT = build_prompt([((256, 40, 41, 257), _CODES)], [256, 50, 51, 257], 5)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model in both layouts, float32."""
    network = new_network(parse_config(HEARING, source="flavors"), seed=0, device=CPU).eval()
    spread(network)
    root = tmp_path_factory.mktemp("peft")
    files = write_base(root / "original", network)
    write_transformers(
        root / "transformers", network.state_dict(), network.config, files, dtype=torch.float32
    )
    return {"original": root / "original", "transformers": root / "transformers"}


def their_model(folder: Path) -> Any:
    from transformers import CsmForConditionalGeneration

    return CsmForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


def ours(folder: Path, adapter: Path | None = None, quantize: str = "none") -> CSM:
    checkpoint = find_checkpoint(folder)
    learnt = None if adapter is None else read_adapter(find_adapter(adapter), checkpoint.config)
    return load_csm(checkpoint, device=CPU, dtype=torch.float32, adapter=learnt, quantize=quantize)


def frames(model: CSM) -> tuple[torch.Tensor, list[list[int]]]:
    """Logits after a prompt, and the codes of all codebooks that are drawn there."""
    take = Engine(model).generate(PROMPT, seed=4, max_frames=4)
    return Engine(model).next_logits(PROMPT), [frame.tolist() for frame in take]


CONFIGS: dict[str, dict[str, Any]] = {
    "lora": {"target_modules": ONLY_LLAMAS.format("|".join(ALL)), "r": 4, "lora_alpha": 8},
    "rslora": {"target_modules": ONLY_LLAMAS.format("q_proj"), "r": 4, "lora_alpha": 8, "use_rslora": True},
    "patterns": {
        "target_modules": ONLY_LLAMAS.format("q_proj|k_proj|down_proj"),
        "r": 4,
        "rank_pattern": {"k_proj": 2, "layers.0.mlp.down_proj": 3},
        "alpha_pattern": {"q_proj": 16},
    },
    "dora": {"target_modules": ONLY_LLAMAS.format("q_proj|o_proj|up_proj"), "r": 4, "use_dora": True},
    "whole heads": {
        "target_modules": ONLY_LLAMAS.format("q_proj"), "r": 2, "modules_to_save": ["lm_head"],
    },
    "text embeddings": {"target_modules": [*ALL[:2], "embed_text_tokens"], "r": 3},
    "suffixes as unsloth has them": {"target_modules": ALL, "r": 4, "lora_alpha": 4},
}  # fmt: skip


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_peft_has_saved_gives_the_logits_that_peft_gives(
    bases: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    torch.manual_seed(7)
    model = peft.get_peft_model(
        their_model(bases["transformers"]), peft.LoraConfig(init_lora_weights=False, **CONFIGS[kind])
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "codec_model" in name:
                # The codec is no part of what speaks; PEFT would train it with the rest.
                parameter.mul_(0.0 if "lora_B" in name else 1.0)
            elif "modules_to_save" in name:
                parameter.add_(torch.randn_like(parameter) * parameter.std())
    model.save_pretrained(tmp_path / "adapter")
    # transformers' own forward pass with the adapter in place is what PEFT computes; merged, it is a folder.
    merged = model.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bases["transformers"] / name, tmp_path / "merged")
    wanted_logits, wanted_codes = frames(ours(tmp_path / "merged"))
    plain, _ = frames(ours(bases["transformers"]))
    assert (plain - wanted_logits).abs().max() > 1e-2
    for layout, base in bases.items():
        logits, codes = frames(ours(base, tmp_path / "adapter"))
        torch.testing.assert_close(logits, wanted_logits, rtol=1e-4, atol=1e-3, msg=layout)
        assert codes == wanted_codes


def test_what_training_writes_for_peft_is_loaded_by_peft_and_gives_our_logits(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    checkpoint = find_checkpoint(bases["original"])
    network = load_network(checkpoint, device=CPU)
    options = TrainOptions(
        lora_targets=("q_proj", "k_proj", "output_proj", "w1", "heads", "projection"), lora_rank=4
    )
    spec = add_lora(network, options)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("lora_b.weight"):
                parameter.copy_(torch.randn_like(parameter) * 0.1)
            elif parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    write_adapter(tmp_path / "adapter", network, spec, base_model="x/y")
    learnt = read_adapter(find_adapter(tmp_path / "adapter"), checkpoint.config)
    write_peft(tmp_path / "adapter-peft", learnt, checkpoint.config, base_model="x/y")
    with_ours, _ = frames(ours(bases["original"], tmp_path / "adapter"))
    again, _ = frames(ours(bases["original"], tmp_path / "adapter-peft"))
    torch.testing.assert_close(again, with_ours, rtol=1e-5, atol=1e-4)
    model = peft.PeftModel.from_pretrained(their_model(bases["transformers"]), tmp_path / "adapter-peft")
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    theirs, codes = frames(ours(tmp_path / "merged"))
    torch.testing.assert_close(theirs, with_ours, rtol=1e-4, atol=1e-3)
    assert codes == frames(ours(bases["original"], tmp_path / "adapter"))[1]


def test_quantised_weights_are_those_with_the_adapter_in_them(bases: dict[str, Path], tmp_path: Path) -> None:
    torch.manual_seed(7)
    config = peft.LoraConfig(init_lora_weights=False, **CONFIGS["lora"])
    model = peft.get_peft_model(their_model(bases["transformers"]), config)
    model.save_pretrained(tmp_path / "adapter")
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    wanted, _ = frames(ours(tmp_path / "merged", quantize="int8"))
    found, _ = frames(ours(bases["original"], tmp_path / "adapter", quantize="int8"))
    assert (found - wanted).norm() / wanted.norm() < 1e-2
