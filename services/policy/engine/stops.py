"""Stop texts: found across token boundaries while a response grows. Not EOS, which is a token."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

MARGIN = 8
"""Tokens decoded beyond a stop text's bytes, since a window that begins inside a character or word decodes badly."""


class StopMatcher:
    """Watches one response for the first of its stop texts."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: list[str]) -> None:
        """Args: tokenizer, of the model; stops, non-empty texts."""
        self._tokenizer, self._stops = tokenizer, stops
        self._special = frozenset(tokenizer.all_special_ids)
        self._visible: list[int] = []
        # A visible token has at least one byte, so a stop text of so many bytes spans at most so many tokens.
        self._window = max(len(stop.encode()) for stop in stops) + MARGIN

    def add(self, token: int) -> bool:
        """Takes the response's next token; True when the response now holds a stop text."""
        if token in self._special:
            return False
        self._visible.append(token)
        tail = decode_text(self._tokenizer, self._visible[-self._window :])
        if not any(stop in tail for stop in self._stops):
            return False
        text = decode_text(self._tokenizer, self._visible)
        return any(stop in text for stop in self._stops)


def cut_at_stop(text: str, stops: list[str]) -> str:
    """The text before the first stop text in it."""
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(found)] if found else text


def decode_text(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """Token ids as text, special tokens left out."""
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def response_text(tokenizer: PreTrainedTokenizerBase, ids: list[int], stops: list[str]) -> str:
    """The text of a response that is complete, without special tokens and without its stop text."""
    return cut_at_stop(decode_text(tokenizer, ids), stops)
