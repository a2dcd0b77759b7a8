"""Bundles: what is written comes back the same, and what does not fit is refused with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlhf.contracts.errors import Conflict
from rlhf.lm.ensemble import EnsembleShape, RewardEnsemble
from rlhf.lm.ensemble_bundle import load_bundle, save_bundle
from rlhf.lm.exchanges import encode_exchange
from rlhf.lm.loading import LanguageModel, load_language_model
from tests.tiny_models import save_tiny_llama


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_language_model(str(save_tiny_llama(tmp_path_factory.mktemp("models") / "tiny")))


def make_ensemble(base: LanguageModel, *, seed: int = 1) -> RewardEnsemble:
    shape = EnsembleShape(
        backbone=base.name, width=32, trunk_layers=3, member_layers=2, members=2, lora_r=2, max_length=64
    )
    ensemble = RewardEnsemble(base, shape, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in ensemble.state_dict().values():
            tensor.add_(0.2 * torch.rand(tensor.shape, generator=generator))
    return ensemble


@pytest.fixture
def bundle(base: LanguageModel, tmp_path: Path) -> Path:
    folder = tmp_path / "rm" / "1"
    folder.mkdir(parents=True)
    save_bundle(folder, make_ensemble(base), base, temperature=0.7)
    return folder


def test_what_is_saved_comes_back_the_same(base: LanguageModel, bundle: Path) -> None:
    ensemble, loaded = make_ensemble(base), load_bundle(bundle, base)
    assert loaded.shape == ensemble.shape
    assert loaded.state_dict().keys() == ensemble.state_dict().keys()
    assert all(torch.equal(tensor, ensemble.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    exchange = encode_exchange(base.tokenizer, "Hi", "Hello.", max_length=64)
    assert torch.equal(loaded.score([exchange], token_budget=64), ensemble.score([exchange], token_budget=64))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_config_tells_what_it_is(base: LanguageModel, bundle: Path) -> None:
    config = json.loads((bundle / "config.json").read_text())
    assert config["shape"]["backbone"] == "tiny"
    assert config["temperature"] == 0.7
    assert config["pooling"] == "closing+mean"
    assert len(config["probe"]) == len(config["reference_mean"]) == len(config["reference_std"]) == 2
    assert sorted(path.name for path in bundle.iterdir()) == ["config.json", "ensemble.safetensors"]


def edit_config(bundle: Path, change: Callable[[dict], None]) -> None:
    config = json.loads((bundle / "config.json").read_text())
    change(config)
    (bundle / "config.json").write_text(json.dumps(config))


def edit_tensors(bundle: Path, change: Callable[[dict], None]) -> None:
    tensors = load_file(bundle / "ensemble.safetensors")
    change(tensors)
    save_file(tensors, bundle / "ensemble.safetensors")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda b: (b / "config.json").unlink(), r"rm@1 cannot be used with tiny: .*No such file"),
        (lambda b: (b / "config.json").write_text("{"), r"rm@1 cannot be used with tiny: config.json: .*JSON"),
        (lambda b: (b / "ensemble.safetensors").write_bytes(b"no"), "ensemble.safetensors is no safetensors file"),
        (lambda b: torch.save({}, b / "ensemble.safetensors"), "ensemble.safetensors is no safetensors file"),
        (
            lambda b: (b / "ensemble.safetensors").rename(b / "ensemble.pt"),
            "has no ensemble.safetensors, only .*pt; no",
        ),
        (
            lambda b: edit_config(b, lambda c: c.update(format=2)),
            "config.json: format: Input should be 3; .*train it again",
        ),
        (lambda b: edit_config(b, lambda c: c["shape"].update(trunk_layers=9)), "trunk_layers=9 exceeds the 4 layers"),
        (lambda b: edit_config(b, lambda c: c["shape"].update(width=64)), "made for width 64"),
        (lambda b: edit_config(b, lambda c: c["shape"].update(lora_r=3)), r"is float32 .*is needed; publish it again"),
        (lambda b: edit_config(b, lambda c: c["shape"].update(lora_r=10**9)), "shape.lora_r: .*less than or equal to"),
        (
            lambda b: edit_config(b, lambda c: c["shape"].update(members=10**9)),
            "shape.members: .*less than or equal to",
        ),
        (
            lambda b: edit_config(b, lambda c: c["shape"].update(lora_scale=float("inf"))),
            "scores its probe differently",
        ),
        (lambda b: edit_tensors(b, lambda t: t.pop("bias")), r"bias is absent, float32 \(2,\) is needed"),
        (lambda b: edit_tensors(b, lambda t: t.update(extra=torch.zeros(1))), r"extra is float32 \(1,\), nothing of"),
        (
            lambda b: edit_tensors(b, lambda t: t.update(bias=t["bias"].to(torch.float8_e4m3fn))),
            "bias is float8_e4m3fn",
        ),
        (lambda b: edit_tensors(b, lambda t: t["heads"].fill_(float("nan"))), "safetensors of rm@1 holds NaN .* heads"),
        (lambda b: edit_tensors(b, lambda t: t["heads"].fill_(float("inf"))), "safetensors of rm@1 holds NaN .* heads"),
        (
            lambda b: edit_tensors(b, lambda t: t["reference_std"].zero_()),
            "scores its probe differently on tiny: off by",
        ),
        (lambda b: edit_tensors(b, lambda t: t["bias"].add_(1.0)), "scores its probe differently on tiny: off by"),
        (lambda b: edit_config(b, lambda c: c["probe"].pop()), "rm@1 cannot be used with tiny: .*probe"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(
    base: LanguageModel, bundle: Path, damage: Callable[[Path], None], told: str
) -> None:
    damage(bundle)
    with pytest.raises(Conflict, match=told):
        load_bundle(bundle, base)


def test_the_same_shape_on_another_backbone_is_noticed(bundle: Path, tmp_path: Path) -> None:
    stranger = load_language_model(str(save_tiny_llama(tmp_path / "stranger", seed=5)))
    with pytest.raises(Conflict, match="trained on tiny and scores its probe differently on stranger"):
        load_bundle(bundle, stranger)


def test_an_unsound_ensemble_is_not_saved(base: LanguageModel, tmp_path: Path) -> None:
    ensemble = make_ensemble(base)
    ensemble.reference_std.zero_()
    with pytest.raises(ValueError, match="scores its probe"):
        save_bundle(tmp_path, ensemble, base, temperature=1.0)
    assert list(tmp_path.iterdir()) == []
