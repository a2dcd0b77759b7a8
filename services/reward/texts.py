"""Texts of other trainers' clients as samples: where a prompt ends and its response begins. No HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from rlhf.contracts.base import Message
from rlhf.contracts.errors import InvalidInput
from rlhf.contracts.reward import RewardSample
from rlhf.lm.chat import RenderedPrompt, render_messages, render_prompt, shown_roles

QUESTION, ANSWER = "question", "answer"
SHOWN = 60
"""Characters of a client's text that an error shows."""


@dataclass(frozen=True)
class RenderedSample:
    """A sample whose prompt is in the backbone's chat template already."""

    prompt: RenderedPrompt
    response: str


Sample = RewardSample | RenderedSample


class TextReader:
    r"""Reads texts by what one tokenizer's chat template writes between a question and its answer.

    Attributes:
        seam: the text from the end of the user's words to the beginning of the assistant's, such as
            `<|im_end|>\n<|im_start|>assistant\n`; blank where the template writes nothing that could be found again.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Learns the template from a conversation of two words."""
        turns = [Message(role="user", content=QUESTION), Message(role="assistant", content=ANSWER)]
        opened = render_prompt(tokenizer, QUESTION)
        before, _, self._ending = render_messages(tokenizer, turns, answer=False).rpartition(ANSWER)
        bos, eos = tokenizer.bos_token or "", tokenizer.eos_token or ""
        self.seam = opened.rpartition(QUESTION)[2]
        # Some templates write a space, or an empty thought, that a model's own response would not begin with.
        self._lead = before.partition(self.seam)[2] if self.seam.strip() else ""
        self._bos = bos if opened.startswith(bos) else ""
        # A blank ending may as well be the writer's own words.
        self._closers = [text for text in (self._ending, self._ending.rstrip(), eos) if text.strip()]

    def pair(self, prompt: str, response: str) -> Sample:
        """A sample of two texts. A prompt with the seam is in the chat template; any other one is a user's turn."""
        if self.seam.strip() and self.seam in prompt:
            return RenderedSample(self._rendered(prompt), self._unclosed(response))
        return RewardSample(prompt=prompt, response=self._unclosed(response))

    def whole(self, where: str, text: str) -> Sample:
        """A sample of one text in the chat template; the last turn is the response.

        Args:
            where: the text's place in the request, for the message.
            text: the conversation.

        Raises:
            InvalidInput: it is not in the template.
        """
        prompt, seam, response = text.rpartition(self.seam) if self.seam.strip() else ("", "", text)
        if not prompt:
            raise InvalidInput(
                f"{where} is {shortened(text)} and has no {self.seam!r}, which begins a response in this model's chat "
                "template; a reward model scores a response to a prompt: send the conversation in that template, as "
                "`messages` to /classify or /pooling, or prompt and response as a pair to /score, /rerank or /predict"
            )
        written = response.removeprefix(self._lead).removesuffix(self._ending)
        return RenderedSample(self._rendered(prompt + seam), self._unclosed(written))

    def _rendered(self, prompt: str) -> RenderedPrompt:
        # Clients of servers that add the BOS token themselves leave it out.
        return RenderedPrompt(prompt if prompt.startswith(self._bos) else self._bos + prompt)

    def _unclosed(self, response: str) -> str:
        """Scoring closes a response itself; closed twice it would be another text."""
        return next((response.removesuffix(end) for end in self._closers if response.endswith(end)), response)


def conversation(messages: Sequence[Message]) -> RewardSample:
    """A sample whose response is the last message. Raises InvalidInput when that is not an assistant's answer."""
    *prompt, last = messages
    if last.role != "assistant" or not prompt:
        raise InvalidInput(
            f"messages are of the roles {shown_roles(messages)}; a reward model scores a response to a prompt: end "
            "with the assistant's message, after one of the user at least"
        )
    return RewardSample(prompt=prompt, response=last.content)


def shortened(text: str) -> str:
    """A client's text for an error's message."""
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "...")
