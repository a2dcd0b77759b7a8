"""Turns of a prompt that the backbone's chat template has written, for members that write them in another one."""

from __future__ import annotations

from collections.abc import Iterator

from transformers import PreTrainedTokenizerBase

from rlhf.contracts.base import Message
from rlhf.contracts.errors import InvalidInput
from rlhf.contracts.reward import RewardSample
from rlhf.lm.chat import render_messages
from services.reward.texts import ANSWER, QUESTION, Sample, shortened

SYSTEM, FURTHER = "instruction", "further"


class TurnReader:
    """Undoes one tokenizer's chat template. What it reads is rendered again and compared, so it is right or refused."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Learns what the template writes before, between and after turns, from conversations of single words."""
        self._tokenizer = tokenizer
        user = Message(role="user", content=QUESTION)
        self._head, _, self._seam = self._write(user).rpartition(QUESTION)
        answer, further = Message(role="assistant", content=ANSWER), Message(role="user", content=FURTHER)
        before, _, after = self._write(user, answer, further).rpartition(ANSWER)
        # Some templates write a space, or an empty thought, before an answer that was given already.
        self._lead = before.rpartition(self._seam)[2] if self._seam.strip() else ""
        self._between = after.partition(FURTHER)[0]
        self._system: tuple[str, str] | None = None
        try:
            head, _, rest = self._write(Message(role="system", content=SYSTEM), user).partition(SYSTEM)
        except InvalidInput:
            return
        self._system = (head, rest.partition(QUESTION)[0])

    def sample(self, sample: Sample) -> RewardSample:
        """The sample as turns.

        Raises:
            InvalidInput: its prompt is written as the template never writes one.
        """
        if isinstance(sample, RewardSample):
            return sample
        text = sample.prompt.text
        for turns in self._readings(text):
            if self._reads_back(turns, text):
                return RewardSample(prompt=turns, response=sample.response)
        raise InvalidInput(
            f"the prompt {shortened(text)} cannot be taken apart into turns, which this reward model's members write "
            "in chat templates of their own; send messages, or the user's words without a chat template"
        )

    def _readings(self, text: str) -> Iterator[list[Message]]:
        """What the text may mean; the template's own first words are no one's turn."""
        if not self._seam.strip() or not text.endswith(self._seam):
            return
        first, *later = text.removesuffix(self._seam).split(self._seam)
        if later and not self._between:
            return
        turns = []
        for part in later:
            answer, _, question = part.partition(self._between)
            said = answer.removeprefix(self._lead)
            turns += [Message(role="assistant", content=said), Message(role="user", content=question)]
        if first.startswith(self._head):
            yield [Message(role="user", content=first.removeprefix(self._head)), *turns]
        if self._system is not None and first.startswith(self._system[0]) and self._system[1]:
            system, _, question = first.removeprefix(self._system[0]).partition(self._system[1])
            yield [Message(role="system", content=system), Message(role="user", content=question), *turns]

    def _reads_back(self, turns: list[Message], text: str) -> bool:
        try:
            return self._write(*turns) == text
        except InvalidInput:
            return False

    def _write(self, *turns: Message) -> str:
        return render_messages(self._tokenizer, list(turns), answer=True)
