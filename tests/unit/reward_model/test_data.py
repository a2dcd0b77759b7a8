"""Filters, splits and encoding of preference pairs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.contracts.base import Message
from rlhf.contracts.errors import InvalidInput
from rlhf.contracts.jobs import PreferencePair
from rlhf.lm.exchanges import Exchange
from rlhf.lm.loading import load_tokenizer
from services.trainer.reward_model.data import EncodedPairs, encode_pairs, filter_pairs, read_pairs, split_by_prompt
from services.trainer.reward_model.data_report import describe_data
from tests.tiny_models import save_tokenizer


def pair(prompt: str, chosen: str, rejected: str, **more: object) -> PreferencePair:
    return PreferencePair.model_validate({"prompt": prompt, "chosen": chosen, "rejected": rejected, **more})


def test_text_and_conversation_are_the_same_prompt() -> None:
    turns = [Message(role="user", content="Hi")]
    answer = [Message(role="assistant", content="Hello.")]
    plain, spoken = read_pairs([pair("Hi", "Hello.", "No."), PreferencePair(prompt=turns, chosen=answer, rejected="x")])
    assert plain.key == spoken.key
    assert plain.chosen == spoken.chosen == "Hello."


def test_a_response_of_several_turns_is_refused() -> None:
    turns = [Message(role="user", content="Hi"), Message(role="assistant", content="Hello.")]
    with pytest.raises(InvalidInput, match=r"pairs\.1\.rejected is a conversation of 2 turns \(user, assistant\)"):
        read_pairs([pair("Hi", "a", "b"), PreferencePair(prompt="Hi", chosen="a", rejected=turns)])


def test_every_filter_counts_what_it_drops() -> None:
    pairs = [
        pair("p", "good", "bad"),
        pair("p", "good", " "),  # empty
        pair("p", "same ", "same"),  # equal
        pair("p", "!?", "good"),  # low quality: no letter or digit
        pair("p", "na " * 30, "good"),  # low quality: a loop
        pair("p", "good \ufffd", "bad"),  # low quality: a character was lost
        pair("p", "good ", "bad"),  # duplicate
        pair("p", "left", "right"),  # contradictory, with the next
        pair("p", "right", "left"),
        pair("p", "left", "right"),
        pair("q", "left", "right"),  # another prompt: no contradiction
        pair("h", "good", "bad", split="heldout"),
        pair("h", "good", "worse", split="train"),  # leaked
    ]
    kept, dropped = filter_pairs(read_pairs(pairs))
    assert [(c.chosen, c.rejected) for c in kept] == [("good", "bad"), ("left", "right"), ("good", "bad")]
    assert dropped == {"empty": 1, "equal": 1, "low_quality": 3, "duplicate": 1, "contradictory": 3, "leaked": 1}


@settings(deadline=None)
@given(
    prompts=st.lists(st.integers(0, 12), min_size=40, max_size=80),
    fraction=st.floats(0.05, 0.4),
    seed=st.integers(0, 99),
)
def test_no_prompt_has_two_roles(prompts: list[int], fraction: float, seed: int) -> None:
    pairs = read_pairs([pair(str(p), f"good {i}", f"bad {i}") for i, p in enumerate([*range(12), *prompts])])
    roles = split_by_prompt(pairs, fraction=fraction, seed=seed)
    assert roles == split_by_prompt(pairs, fraction=fraction, seed=seed)
    by_prompt: dict[str, set[str]] = {}
    for one, role in zip(pairs, roles, strict=True):
        by_prompt.setdefault(one.key, set()).add(role)
    assert all(len(found) == 1 for found in by_prompt.values())
    assert set(roles) == {"train", "validation", "evaluation"}


def test_given_splits_are_kept() -> None:
    pairs = read_pairs(
        [pair(f"h{i}", "a", "b", split="heldout") for i in range(3)]
        + [pair(f"t{i}", "a", "b", split="train") for i in range(10)]
        + [pair(f"n{i}", "a", "b") for i in range(10)]
    )
    roles = split_by_prompt(pairs, fraction=0.2, seed=3)
    assert roles[:3] == ["evaluation"] * 3
    assert "evaluation" not in roles[3:]
    # 20 % of the 20 other prompts
    assert roles.count("validation") == 4


def test_a_prompt_marked_for_training_never_evaluates() -> None:
    pairs = read_pairs(
        [pair(f"t{i}", "a", "b", split="train") for i in range(8)] + [pair(f"n{i}", "a", "b") for i in range(2)]
    )
    for seed in range(20):
        roles = split_by_prompt(pairs, fraction=0.2, seed=seed)
        assert "evaluation" not in roles[:8]
        assert roles.count("evaluation") == 2


def test_another_seed_is_another_split() -> None:
    pairs = read_pairs([pair(f"p{i}", "a", "b") for i in range(50)])
    assert split_by_prompt(pairs, fraction=0.2, seed=0) != split_by_prompt(pairs, fraction=0.2, seed=1)


def test_too_few_prompts_are_refused() -> None:
    pairs = read_pairs([pair("p", "a", "b"), pair("q", "a", "b")])
    with pytest.raises(InvalidInput, match="2 distinct prompts with usable pairs leave none for train"):
        split_by_prompt(pairs, fraction=0.2, seed=0)


def test_each_response_is_encoded_once_and_long_ones_drop_their_pairs(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    pairs = read_pairs(
        [
            pair("p", "good", "bad"),
            pair("p", "good", "worse", margin=0.5),
            pair("q", "good", "x" * 99),
            pair("r", "good", "bad"),
            pair("s", "good", "bad"),
        ]
    )
    roles = ["train", "train", "train", "validation", "evaluation"]
    exchanges, encoded, too_long = encode_pairs(pairs, roles, tokenizer, max_length=64)
    # p: good, bad, worse; q: good; r and s: good and bad each
    assert len(exchanges) == 8
    assert too_long == 1
    assert encoded["train"].chosen.tolist() == [0, 0]
    assert encoded["train"].rejected.tolist() == [1, 2]
    assert encoded["train"].margin.tolist() == [0.0, 0.5]
    assert encoded["train"].used.tolist() == [0, 1, 2]
    with pytest.raises(InvalidInput, match="all pairs for evaluation have a response over max_length=64"):
        encode_pairs(pairs, ["train", "train", "evaluation", "validation", "train"], tokenizer, max_length=64)


def test_the_data_report_counts_by_hand() -> None:
    """Two prompts of 2 and 3 tokens; responses of 4 over 1, 2 over 2 and 1 over 4 tokens; one prompt was cut."""

    def exchange(prompt: int, response: int, truncated: bool = False) -> Exchange:
        return Exchange(tuple(range(prompt)), tuple(range(response)), truncated)

    exchanges = [exchange(2, 4), exchange(2, 1), exchange(2, 2), exchange(3, 1, True), exchange(3, 4, True)]
    pairs = EncodedPairs(
        torch.tensor([0, 2, 3]), torch.tensor([1, 2, 4]), torch.zeros(3), torch.arange(3), torch.zeros(3).bool()
    )
    told = describe_data(9, {"empty": 6}, exchanges, {"train": pairs}, spoilt=1, max_length=8)
    assert told == {
        "submitted": 9,
        "dropped": {"empty": 6},
        "spoilt": 1,
        "max_length": 8,
        "roles": {
            "train": {
                "pairs": 3,
                "prompts": 2,
                "longer_is_preferred": 0.5,  # yes, a tie, no
                "truncated": 2,
                "tokens": {
                    "prompt": {"least": 2.0, "median": 2.5, "p95": pytest.approx(2.95), "most": 3.0},
                    "chosen": {"least": 1.0, "median": 2.0, "p95": pytest.approx(3.8), "most": 4.0},
                    "rejected": {"least": 1.0, "median": 2.0, "p95": pytest.approx(3.8), "most": 4.0},
                },
            }
        },
    }
