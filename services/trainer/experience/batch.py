"""One shard of one PPO step, sampled and scored, and its bytes on the wire. Arrays travel raw; nothing is pickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

FORMAT = 2
"""Version of the wire format; a reader knows it and version 1, which had no objectives, and refuses others."""

_FIXED = {"group": "<i4", "ended": "|b1", "rewards": "<f4", "scores": "<f4", "uncertainty": "<f4", "members": "<f4"}
_RAGGED = {"prompt_ids": "<i4", "response_ids": "<i4", "behavior_logprobs": "<f4"}


@dataclass(frozen=True, eq=False)
class ExperienceBatch:
    """N samples. Samples whose generation or score failed are not in N; `failures` has one reason for each.

    Attributes:
        batch_id: `{job}:{step}:{shard}`.
        job: the job's id.
        step: PPO step, 0-based.
        shard: part of the step, 0-based.
        policy_version: the adapter's version that sampled; 0 is the base model.
        group: [N] int32, index of the sample's prompt in the task; samples of one prompt share it.
        prompt_ids: N arrays of int32, as the policy tokenised them.
        response_ids: N arrays of int32, EOS included when it was sampled; never empty.
        behavior_logprobs: N arrays of float32, one per response token, under the distribution sampled from.
        ended: [N] bool, True when EOS or a stop sequence ended the response, False when the length limit did.
        rewards: [N] float32, weighted sums of the objectives.
        scores: [N] float32, mean over members.
        uncertainty: [N] float32, population standard deviation over members.
        members: [N, K] float32, standardised scores.
        objectives: [N] float32 by name, what the rewards are weighted sums of; none where no sample is left.
        responses: N texts.
        prompts: N texts, each the last user turn.
        failures: one reason per dropped sample.
        timings: seconds: generate_s, score_s.
    """

    batch_id: str
    job: str
    step: int
    shard: int
    policy_version: int
    group: NDArray[np.int32]
    prompt_ids: list[NDArray[np.int32]]
    response_ids: list[NDArray[np.int32]]
    behavior_logprobs: list[NDArray[np.float32]]
    ended: NDArray[np.bool_]
    rewards: NDArray[np.float32]
    scores: NDArray[np.float32]
    uncertainty: NDArray[np.float32]
    members: NDArray[np.float32]
    responses: list[str]
    prompts: list[str]
    objectives: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses fields whose lengths disagree: a silent mismatch would train on another sample's reward."""
        n = len(self.group)
        lengths = {name: len(getattr(self, name)) for name in (*_FIXED, *_RAGGED, "responses", "prompts")}
        lengths |= {f"objectives.{name}": len(values) for name, values in self.objectives.items()}
        wrong = {name: length for name, length in lengths.items() if length != n}
        if wrong:
            raise ValueError(f"batch {self.batch_id}: group has {n} samples, but {wrong}; all must be equal")
        if self.members.ndim != 2:
            raise ValueError(f"batch {self.batch_id}: members has shape {self.members.shape}; it must be [N, K]")
        for index, (ids, logprobs) in enumerate(zip(self.response_ids, self.behavior_logprobs, strict=True)):
            if len(ids) != len(logprobs):
                raise ValueError(
                    f"batch {self.batch_id}, sample {index}: {len(ids)} tokens, but {len(logprobs)} log-probabilities"
                )

    def __len__(self) -> int:
        """N."""
        return len(self.group)


def pack(batch: ExperienceBatch) -> bytes:
    """The batch as msgpack; arrays as [dtype, shape, little-endian bytes], ragged ones joined, with their lengths."""
    fixed = {name: _pack_array(getattr(batch, name), dtype) for name, dtype in _FIXED.items()}
    ragged = {name: _pack_ragged(getattr(batch, name), dtype) for name, dtype in _RAGGED.items()}
    objectives = {name: _pack_array(values, "<f4") for name, values in batch.objectives.items()}
    plain = ("batch_id", "job", "step", "shard", "policy_version", "responses", "prompts", "failures", "timings")
    message = {"format": FORMAT, "arrays": fixed, "ragged": ragged, "objectives": objectives}
    message |= {name: getattr(batch, name) for name in plain}
    return bytes(msgpack.packb(message, use_bin_type=True, unicode_errors="surrogatepass"))


def unpack(data: bytes) -> ExperienceBatch:
    """The batch that `pack` made; its arrays are writable copies.

    Raises:
        ValueError: not a batch, another format version, or sizes that disagree.
    """
    try:
        message = msgpack.unpackb(data, raw=False, unicode_errors="surrogatepass")
    except (ValueError, msgpack.UnpackException) as error:
        raise ValueError(f"{len(data)} bytes are not an experience batch: {error}") from error
    if not isinstance(message, dict) or message.get("format") not in (1, FORMAT):
        seen = message.get("format") if isinstance(message, dict) else type(message).__name__
        raise ValueError(f"experience batch of format {seen!r}; this reader knows 1 and {FORMAT}, update both sides")
    if message.pop("format") == 1:
        message["objectives"] = {}
    try:
        arrays, ragged, objectives = message.pop("arrays"), message.pop("ragged"), message.pop("objectives")
        fields: dict[str, Any] = dict(message)
        fields |= {name: _unpack_array(arrays[name], dtype) for name, dtype in _FIXED.items()}
        fields |= {name: _unpack_ragged(ragged[name], dtype) for name, dtype in _RAGGED.items()}
        fields["objectives"] = {name: _unpack_array(objectives[name], "<f4") for name in objectives}
        return ExperienceBatch(**fields)
    except (KeyError, TypeError) as error:
        raise ValueError(f"experience batch {message.get('batch_id')!r} is malformed: {error!r}") from error


def _pack_array(array: NDArray[Any], dtype: str) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(array.shape), "data": np.ascontiguousarray(array, dtype=dtype).tobytes()}


def _pack_ragged(arrays: list[NDArray[Any]], dtype: str) -> dict[str, object]:
    joined = np.concatenate(arrays) if arrays else np.zeros(0, dtype)
    return _pack_array(joined, dtype) | {"lengths": [len(array) for array in arrays]}


def _unpack_array(packed: Mapping[str, Any], dtype: str) -> NDArray[Any]:
    if packed["dtype"] != dtype:
        raise ValueError(f"array of dtype {packed['dtype']!r}; expected {dtype!r}")
    array = np.frombuffer(packed["data"], dtype=np.dtype(dtype)).reshape(packed["shape"])
    # The machine's own byte order, and memory that torch.from_numpy may write to.
    return array.astype(np.dtype(dtype).newbyteorder("="), copy=True)


def _unpack_ragged(packed: Mapping[str, Any], dtype: str) -> list[NDArray[Any]]:
    joined, lengths = _unpack_array(packed, dtype), packed["lengths"]
    if sum(lengths) != len(joined):
        raise ValueError(f"ragged array of {len(joined)} values; its lengths add up to {sum(lengths)}")
    ends = np.cumsum(lengths)
    return [joined[end - length : end].copy() for end, length in zip(ends, lengths, strict=True)]
