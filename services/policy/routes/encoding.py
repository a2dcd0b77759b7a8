"""Raw text as token ids, without a chat template, as TGI's and OpenAI's completions take it."""

from __future__ import annotations

from rlhf.contracts.errors import InvalidInput
from rlhf.lm.loading import TextModel


def encode_inputs(base: TextModel, inputs: str, truncate: int | None) -> list[int]:
    """Token ids of the raw text as TGI makes them: no chat template, the tokenizer's own special tokens.

    Args:
        base: the model.
        inputs: text.
        truncate: keep only the last so many tokens.

    Raises:
        InvalidInput: nothing is left, or truncate is over the model's length.
    """
    if not inputs:
        raise InvalidInput("inputs is empty; give at least one character")
    longest = base.max_positions - 1
    if truncate is not None and not 0 < truncate <= longest:
        raise InvalidInput(f"parameters.truncate={truncate} is outside 1 to {longest}, this model's longest prompt")
    ids = list(base.tokenizer(inputs, verbose=False)["input_ids"])
    return ids if truncate is None else ids[-truncate:]
