"""Parameter counts against real models, and against what published models are known to have."""

import json
from pathlib import Path

import pytest
from transformers import (
    AutoConfig,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from rlhf.lm import layers
from services.trainer.estimate.shape import ROTARY_FAMILIES, read_shape
from tests.unit.trainer.estimate.published import GPT_NEO_1_3B, GPT_NEO_125M, LLAMA_2_7B, SMOLLM2_135M

SIZES = {"vocab_size": 40, "hidden_size": 24, "intermediate_size": 36, "max_position_embeddings": 32}
ROTARY = {**SIZES, "num_hidden_layers": 3, "num_attention_heads": 4}
MODELS = {
    "llama, tied, two key heads": (
        LlamaForCausalLM,
        LlamaConfig,
        {"num_key_value_heads": 2, "tie_word_embeddings": True},
    ),
    "llama with biases, untied": (LlamaForCausalLM, LlamaConfig, {"attention_bias": True, "mlp_bias": True}),
    "llama with heads of their own size": (LlamaForCausalLM, LlamaConfig, {"head_dim": 8}),
    "mistral": (MistralForCausalLM, MistralConfig, {"num_key_value_heads": 2}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {"num_key_value_heads": 2}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"num_key_value_heads": 2, "head_dim": 6}),
    "gpt_neo": (
        GPTNeoForCausalLM,
        GPTNeoConfig,
        {"num_layers": 3, "num_heads": 4, "attention_types": [[["global", "local", "local"], 1]]},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_parameters_and_linear_modules_of_every_family_are_counted_exactly(name: str, tmp_path: Path) -> None:
    make, configure, own = MODELS[name]
    tokens = {"bos_token_id": 0, "eos_token_id": 1}
    config = configure(**(SIZES if name == "gpt_neo" else ROTARY), **own, **tokens)
    model = make(config)
    # As a user's folder has it: the file leaves out what is the family's default.
    config.save_pretrained(tmp_path)
    shape = read_shape(json.loads((tmp_path / "config.json").read_text()))
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert shape.packs == layers.LayerStack(model).packs
    masks = [buffer for buffer_name, buffer in model.named_buffers() if buffer_name.endswith("attention.bias")]
    assert shape.mask_bytes == sum(mask.nbytes for mask in masks)
    layer = layers.LayerStack(model).layers[0]
    for linear in shape.linears:
        (module,) = [each for path, each in layer.named_modules() if path.rpartition(".")[2] == linear.name]
        assert (module.in_features, module.out_features, module.bias is not None) == (
            linear.inputs,
            linear.outputs,
            linear.bias,
        )


def test_published_models_have_their_published_parameters() -> None:
    # Counted by transformers from the same files; 134,515,008 and 6,738,415,616 are also on their model cards.
    assert read_shape(SMOLLM2_135M).parameters == 134_515_008
    assert read_shape(GPT_NEO_125M).parameters == 125_198_592
    assert read_shape(GPT_NEO_1_3B).parameters == 1_315_575_808
    assert read_shape(LLAMA_2_7B).parameters == 6_738_415_616


def test_the_families_are_those_that_the_learner_takes() -> None:
    assert ROTARY_FAMILIES == layers.ROTARY_FAMILIES


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_what_a_config_leaves_out_is_the_default_of_its_family(family: str) -> None:
    sizes = {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 2, "intermediate_size": 64}
    full = AutoConfig.for_model(family, **sizes)
    shape = read_shape({"model_type": family, "vocab_size": 100, **sizes})
    assert shape.key_value_heads == full.num_key_value_heads
    assert shape.head_size == (getattr(full, "head_dim", None) or 128)
    assert shape.tied == full.tie_word_embeddings


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model_type": "bert"}, "family 'bert' cannot be trained yet; those that can: gpt_neo, llama"),
        ({"hidden_size": None}, "hidden_size=None"),
        ({"vocab_size": "many"}, "vocab_size='many'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0"),
    ],
)
def test_what_is_no_shape_is_refused_with_its_key(change: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_shape({**SMOLLM2_135M, **change})
