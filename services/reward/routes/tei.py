"""TEI's `/predict`."""

from __future__ import annotations

from fastapi import APIRouter, Request

from rlhf.contracts.scoring import TeiPrediction, TeiPredictRequest
from services.reward.routes.scoring import ERRORS, reward_all, text_reader
from services.reward.texts import Sample, TextReader

router = APIRouter(tags=["tei"])


@router.post("/predict", responses=ERRORS)
async def predict(body: TeiPredictRequest, request: Request) -> list[TeiPrediction] | list[list[TeiPrediction]]:
    """The reward of a conversation or of a pair, as the only class of a classifier; of each in a batch."""
    reader = text_reader(request)
    if isinstance(body.inputs, list) and isinstance(body.inputs[0], list):
        samples = [_sample(f"inputs.{index}", sequence, reader) for index, sequence in enumerate(body.inputs)]
        rewards = await reward_all(request, body.model, samples)
        return [[TeiPrediction(score=value)] for value in rewards.values]
    rewards = await reward_all(request, body.model, [_sample("inputs", body.inputs, reader)])
    return [TeiPrediction(score=value) for value in rewards.values]


def _sample(where: str, sequence: str | list[str], reader: TextReader) -> Sample:
    texts = [sequence] if isinstance(sequence, str) else sequence
    return reader.pair(texts[0], texts[1]) if len(texts) == 2 else reader.whole(where, texts[0])
