"""What is refused before anything is queued, in words that name the value and the cure."""

import hashlib

import pytest

from rlhf.contracts.errors import InvalidInput
from rlhf.contracts.policy import SamplingParams
from services.policy.engine.requests import check_length, check_sampling
from services.policy.engine.rows import UniformStream, sample_seed


def test_prompt_and_response_together_fit_exactly() -> None:
    check_length("prompt 0", 12, 2036, 2048)
    with pytest.raises(InvalidInput) as caught:
        check_length("prompt 0", 12, 4096, 2048)
    assert caught.value.message == (
        "max_new_tokens=4096 exceeds the 2048 tokens this model can hold together with a 12-token prompt (prompt 0); "
        "lower it to 2036 or less"
    )


@pytest.mark.parametrize("length", [2048, 5000])
def test_a_prompt_without_room_for_a_response(length: int) -> None:
    with pytest.raises(InvalidInput, match=f"prompt 3 has {length} tokens.*shorten the prompt to 2047 or less"):
        check_length("prompt 3", length, 1, 2048)


def test_an_empty_prompt() -> None:
    with pytest.raises(InvalidInput, match="empty"):
        check_length("prompt 0", 0, 1, 2048)


def test_contradictions() -> None:
    with pytest.raises(InvalidInput, match="min_new_tokens=9 exceeds max_new_tokens=8; lower it to 8 or less"):
        check_sampling(SamplingParams(max_new_tokens=8, min_new_tokens=9))
    with pytest.raises(InvalidInput, match="stop has an empty text"):
        check_sampling(SamplingParams(stop=["a", ""]))


def test_the_seed_of_a_sample_is_the_documented_hash() -> None:
    digest = hashlib.sha256(b"7:2:3").digest()
    assert sample_seed(7, 2, 3) == int.from_bytes(digest[:8], "big") & (2**63 - 1)


def test_a_stream_depends_on_its_seed_alone() -> None:
    first, again, other = UniformStream(5), UniformStream(5), UniformStream(6)
    numbers = [first.next() for _ in range(200)]
    assert numbers == [again.next() for _ in range(200)]
    assert numbers != [other.next() for _ in range(200)]
    assert all(0 <= number < 1 for number in numbers)
    assert len(set(numbers)) > 190


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": 1e-30}, "temperature=1e-30 is too small to divide by; send 0"),
        ({"repetition_penalty": 1e-30}, "repetition_penalty=1e-30 is under 0.01"),
    ],
)
def test_settings_that_leave_no_numbers(settings: dict, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        check_sampling(SamplingParams(**settings))
