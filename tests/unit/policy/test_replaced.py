"""Full fine-tuning's versions in the engine: as transformers with the same tensors, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.errors import Conflict
from rlhf.lm.loading import LanguageModel, load_language_model
from tests.tiny_models import save_tokenizer
from tests.unit.policy.publishing import peft_logits, publish
from tests.unit.policy.test_adapters import CLOSE, IDS, Library


def changed(base: LanguageModel, *, seed: int = 1, layers: tuple[str, ...] = ("2.", "3.")) -> dict[str, Tensor]:
    """Other values for every parameter of some layers and for the final norm."""
    generator = torch.Generator().manual_seed(seed)
    upper = tuple(f"{prefix}{layer}" for prefix in ("model.layers.", "transformer.h.") for layer in layers)
    chosen = (*upper, "model.norm", "transformer.ln_f")
    own = {name: parameter for name, parameter in base.model.named_parameters() if name.startswith(chosen)}
    return {name: p + 0.3 * torch.randn(p.shape, generator=generator) for name, p in own.items()}


def publish_tensors(store: ArtifactStore, name: str, version: int, tensors: dict[str, Tensor]) -> str:
    return store.publish("adapters", name, version, lambda folder: save_file(tensors, folder / "replaced.safetensors"))


def wanted_logits(folder: Path, tensors: dict[str, Tensor]) -> Tensor:
    """By transformers, with the tensors in the model's place."""
    model = load_language_model(str(folder)).model
    model.load_state_dict(tensors, strict=False)
    return model(input_ids=torch.tensor([IDS])).logits[0, -1]


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


@pytest.mark.parametrize("packed", [True, False])
def test_replaced_weights_compute_as_in_transformers(
    folders: dict[str, Path], family: str, store: ArtifactStore, packed: bool
) -> None:
    base = load_language_model(str(folders[family]))
    versions = [changed(base, seed=1), changed(base, seed=2, layers=("0.", "1.", "2.", "3."))]
    refs = [publish_tensors(store, "job", number, tensors) for number, tensors in enumerate(versions, start=1)]
    adapter = publish(store, folders[family], "lora", 1)
    library = Library(base, store, packed=packed)
    plain = library.logits()
    expected = {ref: wanted_logits(folders[family], tensors) for ref, tensors in zip(refs, versions, strict=True)}
    expected[adapter] = peft_logits(folders[family], store.resolve("adapters", adapter), IDS)
    assert (expected[refs[0]] - plain).abs().max() > 0.1, "the version changes something"
    # Whole weights, factors and the base model in turn leave nothing of each other.
    for ref in (refs[0], adapter, refs[1], None, refs[0], refs[1]):
        library.activate(ref)
        if ref is None:
            assert torch.equal(library.logits(), plain)
        else:
            torch.testing.assert_close(library.logits(), expected[ref], **CLOSE)


def test_biases_of_joined_layers_are_replaced(store: ArtifactStore, tmp_path: Path) -> None:
    # Qwen2's query, key and value have biases, and are one product here.
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = Qwen2Config(vocab_size=258, num_key_value_heads=2, initializer_range=0.2, **sizes)
    folder = tmp_path / "qwen2"
    save_tokenizer(folder)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    base = load_language_model(str(folder))
    tensors = {name: t for name, t in changed(base).items() if name.endswith(("k_proj.bias", "v_proj.weight"))}
    library = Library(base, store)
    plain = library.logits()
    library.activate(publish_tensors(store, "job", 1, tensors))
    torch.testing.assert_close(library.logits(), wanted_logits(folder, tensors), **CLOSE)
    library.activate(None)
    assert torch.equal(library.logits(), plain)


def test_the_memory_bound_counts_every_tensor(llama: LanguageModel, store: ArtifactStore) -> None:
    tensors = changed(llama)
    for version in (1, 2, 3):
        publish_tensors(store, "job", version, changed(llama, seed=version))
    # Two versions of these layers fit; the one used longest ago goes.
    library = Library(llama, store, mib=2 * sum(t.nbytes for t in tensors.values()) / 2**20)
    for ref in ("job@1", "job@2", "job@1", "job@3"):
        library.activate(ref)
    assert library.library.loaded == ["job@1", "job@3"]


QUERY, BIAS, NORM = (
    "model.layers.3.self_attn.q_proj.weight",
    "model.layers.3.self_attn.q_proj.bias",
    "model.norm.weight",
)
DEEPER, EMBEDDING = "model.layers.9.mlp.up_proj.weight", "model.embed_tokens.weight"
MISFITS: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "nothing": (dict.clear, "replaces nothing"),
    "a deeper model's": (lambda t: t.update({DEEPER: torch.ones(2)}), r"layers\.9.*which this model does not have"),
    "a bias": (lambda t: t.update({BIAS: torch.ones(32)}), r"q_proj\.bias, which this model does not have"),
    "an embedding": (lambda t: t.update({EMBEDDING: torch.ones(258, 32)}), "cannot exchange"),
    "a wrong matrix": (
        lambda t: t.update({QUERY: torch.ones(32, 31)}),
        r"\[32, 31\], where .* is \[32, 32\]",
    ),
    "a wrong norm": (lambda t: t.update({NORM: torch.ones(31)}), r"\[31\], where .* is \[32\]"),
    "not numbers": (lambda t: t[NORM].fill_(float("nan")), "not numbers"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_is_refused(llama: LanguageModel, store: ArtifactStore, name: str) -> None:
    spoil, reason = MISFITS[name]
    tensors = changed(llama)
    spoil(tensors)
    library = Library(llama, store)
    with pytest.raises(Conflict, match=reason):
        library.activate(publish_tensors(store, "job", 1, tensors))
    assert library.library.loaded == []


def test_a_corrupt_file_is_refused(llama: LanguageModel, store: ArtifactStore) -> None:
    library = Library(llama, store)
    write: Callable[[Path], object] = lambda folder: (folder / "replaced.safetensors").write_bytes(b"PK\x03\x04")  # noqa: E731
    with pytest.raises(Conflict, match="cannot be read"):
        library.activate(store.publish("adapters", "job", 1, write))
    ref = publish_tensors(store, "job", 2, changed(llama))
    (store.root / "adapters/job/2/replaced.safetensors").write_bytes(b"")
    with pytest.raises(Conflict, match="corrupt"):
        library.activate(ref)
