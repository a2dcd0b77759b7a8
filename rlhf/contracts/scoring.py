"""Bodies of the reward service's other dialects, named as in OpenRLHF, vLLM and TEI.

Fields that only those servers have a use for are ignored, as those servers ignore what they do not know.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from rlhf.contracts.base import Contract
from rlhf.contracts.openai import ChatMessage, Usage

MAX_TEXTS = 4096
LABEL = "LABEL_0"
"""What transformers calls the one class of a model that gives one number."""

Texts = Annotated[list[str], Field(min_length=1, max_length=MAX_TEXTS)]
TeiSequence = Annotated[list[str], Field(min_length=1, max_length=2)]


class ScoringRequest(Contract):
    """What all requests share."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = Field(None, description="`job@version`; any other name is the server's default model")


class OpenRlhfRequest(ScoringRequest):
    """`POST /get_reward`."""

    query: list[str] = Field(max_length=MAX_TEXTS, description="each a prompt and its response, as one text")
    prompts: list[str] | None = Field(None, max_length=MAX_TEXTS, description="needed: each what its query begins with")
    labels: list[Any] | None = Field(None, description="taken and not used")


class OpenRlhfResponse(Contract):
    """Rewards in the order of the queries."""

    rewards: list[float]
    scores: list[float] = Field(description="the rewards once more, as OpenRLHF's own server has it")
    extra_logs: dict[str, list[float]] = Field(description="one number a query: uncertainty, prompt_truncated (0 or 1)")


class ChatTurn(ChatMessage):
    """One message of a conversation."""

    model_config = ConfigDict(extra="ignore")


class VllmClassifyRequest(ScoringRequest):
    """`POST /classify`: `input` or `messages`."""

    input: str | Texts | None = Field(None, description="conversations as the backbone's chat template writes them")
    messages: Annotated[list[ChatTurn], Field(min_length=1)] | None = Field(
        None, description="one conversation; its last message is the response"
    )


class VllmPoolingRequest(VllmClassifyRequest):
    """`POST /pooling`: `input` or `messages`."""

    encoding_format: Literal["float"] = "float"


class VllmScoreRequest(ScoringRequest):
    """`POST /score`: one prompt and many responses, or as many prompts as responses."""

    text_1: str | Texts = Field(
        validation_alias=AliasChoices("text_1", "queries", "data_1"), description="prompts; also `queries`, `data_1`"
    )
    text_2: str | Texts = Field(
        validation_alias=AliasChoices("text_2", "documents", "items", "data_2"),
        description="responses; also `documents`, `items`, `data_2`",
    )


class VllmRerankRequest(ScoringRequest):
    """`POST /rerank` with `documents`."""

    query: str = Field(description="the prompt")
    documents: str | Texts = Field(description="responses")
    top_n: int = Field(0, description="how many results; 0 or less is all")


class VllmEnvelope(Contract):
    """What vLLM's answers say of themselves."""

    id: str
    object: Literal["list"] = "list"
    created: int = Field(description="seconds since the epoch")
    model: str = Field(description="the reward model that scored")
    usage: Usage


class VllmClass(Contract):
    """One text's score, as the only class of a classifier."""

    index: int
    label: str = LABEL
    probs: list[float] = Field(description="the reward; no probability")
    num_classes: int = 1


class VllmClassifyResponse(VllmEnvelope):
    """`POST /classify`, answered."""

    data: list[VllmClass]


class VllmPooled(Contract):
    """One text's score, as a vector of one number."""

    index: int
    object: Literal["pooling"] = "pooling"
    data: list[float]


class VllmPoolingResponse(VllmEnvelope):
    """`POST /pooling`, answered."""

    data: list[VllmPooled]


class VllmPairScore(Contract):
    """One pair's score."""

    index: int
    object: Literal["score"] = "score"
    score: float


class VllmScoreResponse(VllmEnvelope):
    """`POST /score`, answered."""

    data: list[VllmPairScore]


class VllmDocument(Contract):
    """A response that was scored."""

    text: str
    multi_modal: None = None


class VllmRank(Contract):
    """One response's place is its place in the list."""

    index: int = Field(description="among the documents of the request")
    document: VllmDocument
    relevance_score: float


class VllmRerankUsage(Contract):
    """Tokens of prompts and responses."""

    prompt_tokens: int
    total_tokens: int


class VllmRerankResponse(Contract):
    """`POST /rerank` with `documents`, answered: the highest reward first."""

    id: str
    model: str = Field(description="the reward model that scored")
    usage: VllmRerankUsage
    results: list[VllmRank]


class TeiRequest(ScoringRequest):
    """What TEI's requests share."""

    raw_scores: bool = Field(False, description="taken and not used: scores are never squeezed between 0 and 1")


class TeiPredictRequest(TeiRequest):
    """`POST /predict`: a text, a pair of prompt and response, or a list of such lists."""

    inputs: str | TeiSequence | Annotated[list[TeiSequence], Field(min_length=1, max_length=MAX_TEXTS)]


class TeiPrediction(Contract):
    """A score, as the only class of a classifier."""

    score: float
    label: str = LABEL


class TeiRerankRequest(TeiRequest):
    """`POST /rerank` with `texts`."""

    query: str = Field(description="the prompt")
    texts: Texts = Field(description="responses")
    return_text: bool = False


class TeiRank(Contract):
    """One response's place is its place in the list."""

    index: int = Field(description="among the texts of the request")
    text: str | None = Field(None, description="absent unless it was asked for")
    score: float

    @model_serializer(mode="wrap")
    def _without_null(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in write(self).items() if value is not None}
