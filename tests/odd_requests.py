"""Requests drawn from our own OpenAPI schemas, right ones and wrong ones: no 5xx, no hang, errors of one shape.

RLHF_FUZZ_EXAMPLES=1000 draws a thousand of each for each route; the default keeps the suite quick.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping

import hypothesis
import schemathesis

from rlhf.contracts.errors import ErrorBody

EXAMPLES = int(os.environ.get("RLHF_FUZZ_EXAMPLES", "10"))


def answers_by_status(
    schema: schemathesis.BaseSchema, method: str, path: str, headers: Mapping[str, str]
) -> Counter[int]:
    """Sends whatever the schema allows on a route, and, where there is a body, what it does not allow.

    Raises:
        AssertionError: an answer is a fault of ours, or an error of another shape than all errors have.
    """
    operation, seen = schema[path][method], Counter[int]()

    def check(case: schemathesis.Case) -> None:
        answer = case.call(headers=dict(headers), timeout=60)
        assert answer.status_code < 500, answer.text
        if answer.status_code >= 400:
            ErrorBody.model_validate_json(answer.content)
        seen[answer.status_code] += 1

    modes = [schemathesis.GenerationMode.POSITIVE]
    if method == "POST":
        modes.append(schemathesis.GenerationMode.NEGATIVE)
    for mode in modes:
        drawn = hypothesis.given(case=operation.as_strategy(mode))(check)
        hypothesis.settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True)(drawn)()
    return seen
