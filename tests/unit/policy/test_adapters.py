"""Adapters made by peft, served merged: right weights, the base untouched, failures that leave the engine as it was."""

import json
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.errors import Conflict, NotFound
from rlhf.lm.loading import LanguageModel, load_language_model
from services.policy.engine.adapter_files import lora_scale
from services.policy.engine.adapters import AdapterLibrary
from services.policy.engine.linears import PackedLinear
from tests.tiny_models import save_tiny_llama
from tests.unit.policy.generating import make_rows, prefilled, serve
from tests.unit.policy.publishing import peft_logits, publish, republish

IDS = [5, 9, 77, 130, 9]
SIZE_MIB = 4 * 64 * 32 * 4 / 2**20
"""Merged weights of one adapter: 4 layers, whose query, key and value rows (32 + 16 + 16) are one matrix over 32."""

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
"""(W + BA)x and Wx + B(Ax) round differently in float32."""


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


class Library:
    """An adapter library whose adapters are waited for and computed with at once."""

    def __init__(self, base: LanguageModel, store: ArtifactStore, *, mib: float = 64, packed: bool = True) -> None:
        self.served = serve(base, packed=packed)
        self.library = AdapterLibrary(store, self.served.places, int(mib * 2**20))
        self._acquired: str | None = None

    def activate(self, ref: str | None) -> None:
        deadline = time.monotonic() + 60
        while (state := self.library.state(ref)) in ("loading", "full"):
            if state == "full":
                self.activate(None)
            assert time.monotonic() < deadline
            time.sleep(0.001)
        if (failure := self.library.take_failure(ref)) is not None:
            raise failure
        assert self.library.acquire(ref)
        self.library.activate(ref)
        self.library.release(self._acquired)
        self._acquired = ref

    def logits(self) -> torch.Tensor:
        return prefilled(self.served, make_rows(self.served.base, [IDS])).logits[0]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"layers_to_transform": [3], "r": 2},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 32}},
    ],
    ids=["plain", "upper-layer", "rank-stabilised", "patterns"],
)
def test_an_adapter_computes_as_in_peft(
    folders: dict[str, Path], family: str, store: ArtifactStore, settings: dict, packed: bool
) -> None:
    base = load_language_model(str(folders[family]))
    library = Library(base, store, packed=packed)
    plain = library.logits()
    library.activate(publish(store, folders[family], "job", 1, **settings))
    adapted = library.logits()
    expected = peft_logits(folders[family], store.resolve("adapters", "job@1"), IDS)
    torch.testing.assert_close(adapted, expected, **CLOSE)
    assert (adapted - plain).abs().max() > 0.1, "the adapter changes something"
    library.activate(None)
    assert torch.equal(library.logits(), plain), "the base model comes back bit for bit"


def test_this_machine_packs(llama: LanguageModel) -> None:
    """Otherwise half of these tests would test the other half."""
    if torch.backends.mkldnn.is_available():
        assert all(type(place.linear) is PackedLinear for place in serve(llama).places.linears.values())


def test_versions_are_never_mixed(folders: dict[str, Path], llama: LanguageModel, store: ArtifactStore) -> None:
    library = Library(llama, store, mib=SIZE_MIB)
    refs = [publish(store, folders["llama"], "job", version, seed=version) for version in (1, 2)]
    wanted = {ref: peft_logits(folders["llama"], store.resolve("adapters", ref), IDS) for ref in refs}
    plain = library.logits()
    for ref in [refs[0], refs[1], None, refs[1], refs[0], None, refs[0], refs[0]]:
        library.activate(ref)
        if ref is None:
            assert torch.equal(library.logits(), plain)
        else:
            torch.testing.assert_close(library.logits(), wanted[ref], **CLOSE)


def test_adapters_of_different_layers_do_not_leak(
    folders: dict[str, Path], llama: LanguageModel, store: ArtifactStore
) -> None:
    library = Library(llama, store)
    library.activate(publish(store, folders["llama"], "low", 1, layers_to_transform=[0], target_modules=["up_proj"]))
    library.activate(publish(store, folders["llama"], "top", 1, layers_to_transform=[3], target_modules=["q_proj"]))
    expected = peft_logits(folders["llama"], store.resolve("adapters", "top@1"), IDS)
    torch.testing.assert_close(library.logits(), expected, **CLOSE)


def test_the_least_recently_used_goes_first(
    folders: dict[str, Path], llama: LanguageModel, store: ArtifactStore
) -> None:
    library = Library(llama, store, mib=2 * SIZE_MIB)
    for version in (1, 2, 3):
        publish(store, folders["llama"], "job", version)
    for ref in ("job@1", "job@2", "job@1", "job@3"):
        library.activate(ref)
    assert library.library.loaded == ["job@1", "job@3"]


def test_memory_in_use_is_not_exceeded(folders: dict[str, Path], llama: LanguageModel, store: ArtifactStore) -> None:
    library = Library(llama, store, mib=1.5 * SIZE_MIB)
    first, second = (publish(store, folders["llama"], "job", version) for version in (1, 2))
    library.activate(first)
    assert library.library.state(second) == "full"
    library.activate(None)  # releases the first
    assert library.library.state(second) == "loading"
    library.activate(second)
    assert library.library.loaded == [second]


def test_a_failure_is_told_once_and_the_next_request_tries_again(
    folders: dict[str, Path], llama: LanguageModel, store: ArtifactStore
) -> None:
    library = Library(llama, store)
    with pytest.raises(NotFound):
        library.activate("job@1")
    library.activate(publish(store, folders["llama"], "job", 1))
    assert library.library.loaded == ["job@1"]


def test_unknown_adapters_are_not_found(llama: LanguageModel, store: ArtifactStore, folders: dict[str, Path]) -> None:
    library = Library(llama, store)
    with pytest.raises(NotFound, match="nothing is named nobody"):
        library.activate("nobody@1")
    publish(store, folders["llama"], "job", 4)
    with pytest.raises(NotFound, match="newest version is job@4"):
        library.activate("job@5")


def test_corruption_is_refused_and_the_engine_stays_as_it_was(
    folders: dict[str, Path], llama: LanguageModel, store: ArtifactStore
) -> None:
    library = Library(llama, store)
    library.activate(publish(store, folders["llama"], "job", 1))
    before = library.logits()
    publish(store, folders["llama"], "job", 2, seed=2)
    weights = store.root / "adapters/job/2/adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(Conflict, match="corrupt"):
        library.activate("job@2")
    assert torch.equal(library.logits(), before)
    assert library.library.loaded == ["job@1"]


def change_config(folder: Path, **settings: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def change_weights(folder: Path, change) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
BREAKAGES = {
    "dora": (lambda f: change_config(f, use_dora=True), "use_dora=True; only False"),
    "other kind": (lambda f: change_config(f, peft_type="IA3"), "peft_type='IA3'"),
    "full modules": (lambda f: change_config(f, modules_to_save=["lm_head"]), "modules_to_save"),
    "no rank": (lambda f: change_config(f, r=0), "no usable r"),
    "half a pair": (lambda f: change_weights(f, lambda t: t.pop(KEY)), "one of the factors"),
    "no pair": (lambda f: change_weights(f, dict.clear), "any factor"),
    "stray weight": (lambda f: change_weights(f, lambda t: t.update(x=torch.zeros(1))), "no LoRA factor"),
    "wrong shape": (lambda f: change_weights(f, lambda t: t.update({KEY: torch.zeros(4, 31)})), r"A \[4, 31\]"),
    "not numbers": (lambda f: change_weights(f, lambda t: t[KEY].fill_(float("nan"))), "not numbers"),
    "no safetensors": (lambda f: (f / "adapter_model.safetensors").write_bytes(b"PK\x03\x04"), "cannot be read"),
    "no object": (lambda f: (f / "adapter_config.json").write_text("[]"), "not a JSON object"),
    "no config": (lambda f: (f / "adapter_config.json").unlink(), "cannot be read"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_adapters_that_cannot_be_served_say_why(
    folders: dict[str, Path], llama: LanguageModel, store: ArtifactStore, name: str
) -> None:
    break_it, reason = BREAKAGES[name]
    library = Library(llama, store)
    publish(store, folders["llama"], "job", 1)
    folder = store.root / "adapters/job/1"
    break_it(folder)
    republish(folder)
    with pytest.raises(Conflict, match=reason):
        library.activate("job@1")
    assert library.library.loaded == []


def test_an_adapter_of_a_deeper_model_is_refused(tmp_path: Path, llama: LanguageModel, store: ArtifactStore) -> None:
    (tmp_path / "deep").mkdir()
    publish(store, save_tiny_llama(tmp_path / "deep", layers=6), "job", 1)
    with pytest.raises(Conflict, match=r"model\.layers\.[45].* which this model does not have"):
        Library(llama, store).activate("job@1")


def test_scale_is_alpha_over_rank_or_its_root() -> None:
    assert lora_scale("a@1", {"r": 4, "lora_alpha": 8}, "q_proj") == 2.0
    assert lora_scale("a@1", {"r": 4, "lora_alpha": 8, "use_rslora": True}, "q_proj") == 4.0  # 8/√4
