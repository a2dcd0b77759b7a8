"""Prompts as token ids: the tokenizer's chat template, or a plain one for models that have none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from rlhf.contracts.base import Message, Prompt, prompt_messages
from rlhf.contracts.errors import InvalidInput

PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ {'system': '', 'user': 'Question: ', 'assistant': 'Answer: '}[m['role']]"
    " + m['content'] + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'Answer:' }}{% endif %}"
)
"""For models without a chat template, such as GPT-Neo."""


@dataclass(frozen=True)
class RenderedPrompt:
    """A prompt as a chat template has written it already, up to where the response begins; taken as it is."""

    text: str


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt | RenderedPrompt) -> str:
    """The prompt as the text that the model continues. The template writes every special token itself."""
    if isinstance(prompt, RenderedPrompt):
        return prompt.text
    return render_messages(tokenizer, prompt_messages(prompt), answer=True)


def render_messages(tokenizer: PreTrainedTokenizerBase, messages: list[Message], *, answer: bool) -> str:
    """A conversation as the template writes it. Args: answer, whether it goes on to where the assistant speaks.

    Raises:
        InvalidInput: the template refuses it, as some do a system's turn, or turns that do not alternate.
    """
    turns = [m.model_dump() for m in messages]
    template = None if tokenizer.chat_template else PLAIN_TEMPLATE
    try:
        return str(
            tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False, add_generation_prompt=answer)
        )
    except TemplateError as error:
        raise InvalidInput(
            f"this model's chat template refuses a conversation of {shown_roles(messages)}: {error}"
        ) from error


def shown_roles(messages: Sequence[Message]) -> str:
    """The roles of a conversation, for an error's message; of a long one those that it begins and ends with."""
    roles: list[str] = [message.role for message in messages]
    return ", ".join(roles if len(roles) <= 8 else [*roles[:4], f"... ({len(roles)} in all) ...", *roles[-2:]])


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text, no special token added; `verbose=False` since a long text is handled, not warned of."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt | RenderedPrompt) -> list[int]:
    """Token ids of the rendered prompt; at least one, so that there is a position to predict the response from."""
    ids = encode_text(tokenizer, render_prompt(tokenizer, prompt))
    return ids or [int(tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id)]
