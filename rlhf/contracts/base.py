"""What all messages share: unknown fields are refused by name, and names of artifacts have one grammar."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from rlhf.contracts.errors import InvalidInput

ARTIFACT_NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
ARTIFACT_REF_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}@[0-9]{1,9}$"
ADAPTER_REF_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}@([0-9]{1,9}|latest)$"

ArtifactRef = Annotated[str, StringConstraints(pattern=ARTIFACT_REF_PATTERN)]
"""`job@version`: a published adapter or reward model. No paths, no URLs."""

AdapterRef = Annotated[str, StringConstraints(pattern=ADAPTER_REF_PATTERN)]
"""As a request names an adapter: `job@version`, or `job@latest` for the newest version that was accepted."""


class Contract(BaseModel):
    """A message: unknown fields are refused with their name."""

    model_config = ConfigDict(extra="forbid")


class Message(Contract):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


Prompt = str | Annotated[list[Message], Field(min_length=1)]
"""A prompt: text, taken as one user turn, or a conversation."""


def prompt_messages(prompt: Prompt) -> list[Message]:
    """The prompt as a conversation: plain text becomes one user turn."""
    return [Message(role="user", content=prompt)] if isinstance(prompt, str) else prompt


def prompt_key(prompt: Prompt) -> str:
    """What makes two prompts the same, text or conversation: the conversation as canonical JSON."""
    return json.dumps([message.model_dump() for message in prompt_messages(prompt)], sort_keys=True)


def turn_text(response: Prompt, where: str) -> str:
    """A response as text. Args: response; where, it stands, for the message.

    Raises:
        InvalidInput: it is a conversation of more than one assistant turn; says which.
    """
    if isinstance(response, str):
        return response
    if len(response) != 1 or response[0].role != "assistant":
        roles = ", ".join(message.role for message in response)
        raise InvalidInput(
            f"{where} is a conversation of {len(response)} turns ({roles}); send one assistant turn, and what comes "
            "before it in `prompt`"
        )
    return response[0].content
