"""Prompts as token ids: the tokenizer's chat template, or a plain one for models that have none."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from rlhf.contracts.base import Prompt, prompt_messages

PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ {'system': '', 'user': 'Question: ', 'assistant': 'Answer: '}[m['role']]"
    " + m['content'] + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'Answer:' }}{% endif %}"
)
"""For models without a chat template, such as GPT-Neo."""


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> str:
    """The prompt as the text that the model continues. The template writes every special token itself."""
    messages = [m.model_dump() for m in prompt_messages(prompt)]
    template = None if tokenizer.chat_template else PLAIN_TEMPLATE
    return str(
        tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=True)
    )


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text, no special token added; `verbose=False` since a long text is handled, not warned of."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Token ids of the rendered prompt; at least one, so that there is a position to predict the response from."""
    ids = encode_text(tokenizer, render_prompt(tokenizer, prompt))
    return ids or [int(tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id)]
