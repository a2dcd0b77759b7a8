"""OpenRLHF's remote reward: `POST /get_reward`."""

from __future__ import annotations

from fastapi import APIRouter, Request

from rlhf.contracts.errors import InvalidInput
from rlhf.contracts.scoring import OpenRlhfRequest, OpenRlhfResponse
from services.reward.routes.scoring import ERRORS, reward_all, text_reader
from services.reward.texts import Sample, TextReader, shortened

router = APIRouter(tags=["openrlhf"])


@router.post("/get_reward", responses=ERRORS)
async def get_reward(body: OpenRlhfRequest, request: Request) -> OpenRlhfResponse:
    """The reward of what follows the prompt in each query. Several reward URLs can leave one with no query at all."""
    rewards = await reward_all(request, body.model, samples_of(body, text_reader(request)))
    logs = {
        "uncertainty": [score.uncertainty for score in rewards.scores],
        "prompt_truncated": [float(score.truncated) for score in rewards.scores],
    }
    return OpenRlhfResponse(rewards=rewards.values, scores=rewards.values, extra_logs=logs)


def samples_of(body: OpenRlhfRequest, reader: TextReader) -> list[Sample]:
    """Cuts queries where their prompts end. Raises InvalidInput when there are no prompts, or other ones."""
    if body.prompts is None:
        raise InvalidInput(
            f"prompts is missing beside {len(body.query)} queries, which do not say where a prompt ends; send "
            "`prompts`, one a query, as OpenRLHF does"
        )
    if len(body.prompts) != len(body.query):
        raise InvalidInput(f"{len(body.query)} queries have {len(body.prompts)} prompts; send one a query")
    samples = []
    for index, (query, prompt) in enumerate(zip(body.query, body.prompts, strict=True)):
        if not query.startswith(prompt):
            same = next((at for at, (a, b) in enumerate(zip(query, prompt, strict=False)) if a != b), len(query))
            raise InvalidInput(
                f"query.{index} does not begin with prompts.{index}: from character {same} on it has "
                f"{shortened(query[same:])} in place of {shortened(prompt[same:])}; send the prompt as it stands in "
                "the query: not cut to a length, and not changed by decoding (clean_up_tokenization_spaces=False)"
            )
        samples.append(reader.pair(prompt, query.removeprefix(prompt)))
    return samples
