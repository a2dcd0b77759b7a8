"""An experience batch and its bytes."""

import dataclasses
import math

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from services.trainer.experience.batch import ExperienceBatch, pack, unpack

TEXT = st.text(st.characters(), max_size=20)
FLOATS = st.floats(width=32)
TOKENS = st.integers(0, 2**31 - 1)


@st.composite
def batches(draw: st.DrawFn) -> ExperienceBatch:
    n, k = draw(st.integers(0, 5)), draw(st.integers(0, 4))
    lengths = draw(st.lists(st.integers(0, 6), min_size=n, max_size=n))

    def vector(dtype: type, *shape: int) -> np.ndarray:
        elements = {np.float32: FLOATS, np.int32: TOKENS, np.bool_: st.booleans()}[dtype]
        return draw(hnp.arrays(dtype, shape, elements=elements))

    return ExperienceBatch(
        batch_id=draw(TEXT),
        job=draw(TEXT),
        step=draw(st.integers(0, 10**6)),
        shard=draw(st.integers(0, 4095)),
        policy_version=draw(st.integers(0, 10**6)),
        group=vector(np.int32, n),
        prompt_ids=[vector(np.int32, draw(st.integers(0, 6))) for _ in range(n)],
        response_ids=[vector(np.int32, length) for length in lengths],
        behavior_logprobs=[vector(np.float32, length) for length in lengths],
        ended=vector(np.bool_, n),
        rewards=vector(np.float32, n),
        scores=vector(np.float32, n),
        uncertainty=vector(np.float32, n),
        members=vector(np.float32, n, k),
        objectives={name: vector(np.float32, n) for name in draw(st.sets(TEXT, max_size=3))},
        responses=draw(st.lists(TEXT, min_size=n, max_size=n)),
        prompts=draw(st.lists(TEXT, min_size=n, max_size=n)),
        failures=draw(st.lists(TEXT, max_size=3)),
        timings=draw(st.dictionaries(TEXT, st.floats(allow_nan=False), max_size=2)),
    )


def same(left: object, right: object) -> bool:
    """Equal in type, shape and bits; NaN equals itself."""
    if isinstance(left, np.ndarray):
        return isinstance(right, np.ndarray) and (left.dtype, left.shape, left.tobytes()) == (
            right.dtype,
            right.shape,
            right.tobytes(),
        )
    if isinstance(left, dict) and any(isinstance(value, np.ndarray) for value in left.values()):
        return list(left) == list(right) and all(same(left[name], right[name]) for name in left)
    if isinstance(left, list):
        return isinstance(right, list) and len(left) == len(right) and all(map(same, left, right))
    return left == right


@given(batches())
def test_unpack_gives_back_every_bit(batch: ExperienceBatch) -> None:
    back = unpack(pack(batch))
    for field in dataclasses.fields(batch):
        assert same(getattr(batch, field.name), getattr(back, field.name)), field.name


def two_samples(**changes: object) -> ExperienceBatch:
    fields = {
        "batch_id": "job:0:0",
        "job": "job",
        "step": 0,
        "shard": 0,
        "policy_version": 0,
        "group": np.array([0, 1], np.int32),
        "prompt_ids": [np.array([1, 2], np.int32), np.array([3], np.int32)],
        "response_ids": [np.array([4, 5, 6], np.int32), np.array([7], np.int32)],
        "behavior_logprobs": [np.array([-1, -2, -3], np.float32), np.array([-math.inf], np.float32)],
        "ended": np.array([True, False]),
        "rewards": np.array([0.5, -0.5], np.float32),
        "scores": np.array([0.5, -0.5], np.float32),
        "uncertainty": np.array([0.1, 0.2], np.float32),
        "members": np.array([[0.4, 0.6], [-0.3, -0.7]], np.float32),
        "responses": ["a", "b"],
        "prompts": ["p", "q"],
    }
    return ExperienceBatch(**{**fields, **changes})


def test_unpacked_arrays_can_be_written_to() -> None:
    back = unpack(pack(two_samples()))
    back.rewards[0] = 1
    back.response_ids[1][0] = 1
    assert len(back) == 2


def test_an_empty_batch_travels() -> None:
    nothing = {name: [] for name in ("prompt_ids", "response_ids", "behavior_logprobs", "responses", "prompts")}
    zeros = {name: np.zeros(0, np.float32) for name in ("rewards", "scores", "uncertainty")}
    batch = two_samples(
        **nothing,
        **zeros,
        group=np.zeros(0, np.int32),
        ended=np.zeros(0, bool),
        members=np.zeros((0, 0), np.float32),
        failures=["prompt 0 sample 0: not scored"],
    )
    back = unpack(pack(batch))
    assert (len(back), back.members.shape, back.failures) == (0, (0, 0), batch.failures)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"rewards": np.zeros(3, np.float32)}, "'rewards': 3"),
        ({"responses": ["a"]}, "'responses': 1"),
        ({"behavior_logprobs": [np.zeros(2, np.float32), np.zeros(1, np.float32)]}, "sample 0: 3 tokens, but 2"),
        ({"members": np.zeros(2, np.float32)}, "[N, K]"),
        ({"objectives": {"length": np.zeros(1, np.float32)}}, "'objectives.length': 1"),
    ],
)
def test_lengths_that_disagree_are_refused(changes: dict, part: str) -> None:
    with pytest.raises(ValueError, match=r"job:0:0") as caught:
        two_samples(**changes)
    assert part in str(caught.value)


def altered(**changes: object) -> bytes:
    return msgpack.packb({**msgpack.unpackb(pack(two_samples())), **changes})


def test_a_batch_from_before_there_were_objectives_is_read() -> None:
    old = msgpack.unpackb(pack(two_samples()))
    del old["objectives"]
    back = unpack(msgpack.packb({**old, "format": 1}))
    assert (back.rewards.tolist(), back.objectives) == ([0.5, -0.5], {})


def test_bytes_that_are_no_batch_are_refused() -> None:
    arrays = msgpack.unpackb(pack(two_samples()))["arrays"]
    for data, part in [
        (b"", "not an experience batch"),
        (b"\xc1", "not an experience batch"),
        (pack(two_samples())[:-1], "not an experience batch"),
        (msgpack.packb(7), "format 'int'"),
        (altered(format=3), "format 3"),
        (altered(arrays={}), "malformed"),
        (altered(unknown=1), "malformed"),
        (altered(objectives=1), "malformed"),
        (altered(arrays={**arrays, "rewards": {**arrays["rewards"], "dtype": "|O"}}), "dtype '|O'"),
        (altered(arrays={**arrays, "rewards": {**arrays["rewards"], "shape": [5]}}), "reshape"),
    ]:
        with pytest.raises(ValueError, match=r".") as caught:
            unpack(data)
        assert part in str(caught.value)
