from pathlib import Path

import pytest
import torch
from transformers import GemmaConfig, GemmaForCausalLM

from rlhf.lm.layers import LayerStack, check_split
from rlhf.lm.loading import load_language_model
from tests.tiny_models import save_tiny_gpt_neo, save_tiny_llama


@pytest.mark.parametrize("save", [save_tiny_llama, save_tiny_gpt_neo])
def test_the_parts_make_the_whole(save: object, tmp_path: Path) -> None:
    model = load_language_model(str(save(tmp_path))).model
    check_split(model)
    stack = LayerStack(model)
    ids = torch.randint(0, 256, (2, 40))
    positions = torch.arange(40).expand(2, -1)
    lower = stack.run(stack.embed(ids, positions), 0, 3, positions)
    ours = model.get_output_embeddings()(stack.finish(stack.run(lower, 3, 4, positions)))
    torch.testing.assert_close(ours, model(input_ids=ids).logits, rtol=1e-4, atol=1e-4)


def test_an_unknown_family_is_named() -> None:
    tiny = GemmaConfig(
        vocab_size=32, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, head_dim=8
    )
    with pytest.raises(ValueError, match="'gemma' cannot be trained yet; supported families: gpt_neo, llama"):
        LayerStack(GemmaForCausalLM(tiny))
