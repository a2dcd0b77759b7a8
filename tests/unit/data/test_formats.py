"""Preference data in the formats that people have: recognised, turned into pairs, refused with the reason."""

import pytest

from rlhf.contracts.jobs import PreferencePair
from rlhf.data.formats import FORMATS, read_preferences
from rlhf.data.sources import DataError


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def says(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


ROWS = {
    "conversational": {"prompt": [user("Hi")], "chosen": [says("good")], "rejected": [says("bad")]},
    "plain": {"prompt": "Hi", "chosen": "good", "rejected": "bad"},
    # UltraFeedback binarized: the prompt as text besides, and scores.
    "dialogue": {
        "prompt": "Hi",
        "prompt_id": "7",
        "chosen": [user("Hi"), says("good")],
        "rejected": [user("Hi"), says("bad")],
        "score_chosen": 8.5,
        "score_rejected": 6.0,
    },
    "hh": {
        "chosen": "\n\nHuman: Hello\n\nAssistant: Yes?\n\nHuman: Hi\n\nAssistant: good",
        "rejected": "\n\nHuman: Hello\n\nAssistant: Yes?\n\nHuman: Hi\n\nAssistant: bad",
    },
    "ultrafeedback": {
        "instruction": "Hi",
        "completions": [
            {"response": "middling", "overall_score": 5},
            {"response": "good", "overall_score": 8.5},
            {"response": "bad", "overall_score": 6 - 4},
        ],
    },
}
PAIRS = {
    "conversational": {"prompt": [user("Hi")], "chosen": [says("good")], "rejected": [says("bad")]},
    "plain": {"prompt": "Hi", "chosen": "good", "rejected": "bad"},
    "dialogue": {"prompt": [user("Hi")], "chosen": [says("good")], "rejected": [says("bad")], "margin": 2.5},
    "hh": {
        "prompt": [user("Hello"), says("Yes?"), user("Hi")],
        "chosen": [says("good")],
        "rejected": [says("bad")],
    },
    "ultrafeedback": {"prompt": "Hi", "chosen": "good", "rejected": "bad", "margin": 6.5},
}


@pytest.mark.parametrize("name", [each.name for each in FORMATS])
def test_each_format_is_recognised_and_read(name: str) -> None:
    found = read_preferences([ROWS[name]] * 2)
    assert (found.format, found.rows) == (name, 2)
    assert [each.pair for each in found.pairs] == [PreferencePair(**PAIRS[name])] * 2


@pytest.mark.parametrize("name", [each.name for each in FORMATS])
def test_no_format_is_taken_for_another(name: str) -> None:
    assert [each.name for each in FORMATS if each.fits(ROWS[name])] == [name]


def test_prompts_keep_their_type_and_their_side_of_the_split() -> None:
    rows = [{**ROWS["plain"], "subset": "chat", "split": "heldout"}, {**ROWS["plain"], "split": "test"}]
    first, second = read_preferences(rows).pairs
    assert (first.kind, first.pair.split) == ("chat", "heldout")
    assert (second.kind, second.pair.split) == (None, None)


def test_rows_that_prefer_nothing_are_counted_by_reason() -> None:
    branching = {**ROWS["hh"], "rejected": "\n\nHuman: Hello\n\nAssistant: No.\n\nHuman: Hi\n\nAssistant: bad"}
    assert read_preferences([ROWS["hh"], branching]).left_out == {"the conversations differ before their last turn": 1}
    tied = {"instruction": "Hi", "completions": [{"response": "a", "score": 1}, {"response": "b", "score": 1}]}
    found = read_preferences([ROWS["ultrafeedback"], tied])
    assert found.left_out == {"fewer than two completions with different scores": 1}


def test_what_fits_no_format_is_refused_with_what_it_has() -> None:
    with pytest.raises(DataError, match=r"row 2 has question: str, answer: int.*plain: prompt, chosen and rejected"):
        read_preferences([ROWS["plain"], {"question": "Hi", "answer": 1}])


def test_text_with_marks_beside_a_prompt_is_no_known_format() -> None:
    """Whether the conversation is the prompt's or its own cannot be told."""
    with pytest.raises(DataError, match="no known format"):
        read_preferences([{**ROWS["hh"], "prompt": "Hi"}])


def test_a_later_row_of_another_format_is_named() -> None:
    rows = [ROWS["plain"]] * 300 + [ROWS["hh"]]
    with pytest.raises(DataError, match=r"row 301 is not plain .*; it has chosen: str, rejected: str"):
        read_preferences(rows)


def test_a_value_that_no_pair_can_have_is_named() -> None:
    row = {**ROWS["conversational"], "prompt": [{"role": "tool", "content": "x"}]}
    with pytest.raises(DataError, match=r"row 1, prompt.*tool"):
        read_preferences([row])


def test_nothing_at_all_is_refused() -> None:
    with pytest.raises(DataError, match="no rows"):
        read_preferences([])
