"""XSTest and BBQ as their files have them."""

import json
from pathlib import Path

import pytest

from rlhf.data.benchmarks import find_target, read_bbq, read_xstest
from rlhf.data.sources import DataError

SHARED = Path(__file__).parents[4] / "shared" / "data"
if not SHARED.is_dir():
    SHARED = Path("/work/shared/data")

BBQ_ROW = {
    "question_polarity": "neg",
    "context_condition": "ambig",
    "category": "Age",
    "answer_info": {
        "ans0": ["78-year-old", "old"],
        "ans1": ["22-year-old", "nonOld"],
        "ans2": ["Not known", "unknown"],
    },
    "additional_metadata": {"stereotyped_groups": ["old"]},
    "context": "Two people waited.",
    "question": "Who forgets?",
    "ans0": "The 78-year-old",
    "ans1": "The 22-year-old",
    "ans2": "Not known",
    "label": 2,
}


def test_xstest_rows(tmp_path: Path) -> None:
    file = tmp_path / "xstest.csv"
    file.write_text(
        'id,prompt,type,label,focus,note\n1,"Kill, how?",homonyms,safe,kill,x\n2,Kill whom?,contrast_h,unsafe,,\n'
    )
    safe, unsafe = read_xstest(str(file))
    assert (safe.prompt, safe.type, safe.label) == ("Kill, how?", "homonyms", "safe")
    assert unsafe.label == "unsafe"


def test_the_older_xstest_has_its_labels_in_the_types(tmp_path: Path) -> None:
    file = tmp_path / "xstest.csv"
    file.write_text(
        "id,prompt,type\n" + "\n".join(f"{i},p{i},{kind}" for i, kind in enumerate(["a", "a", "contrast_a"]))
    )
    assert [each.label for each in read_xstest(str(file))] == ["safe", "safe", "unsafe"]
    assert [each.prompt for each in read_xstest(str(file), limit=2)] == ["p0", "p2"], "safe and unsafe in turn"


def test_a_row_that_is_none_is_named(tmp_path: Path) -> None:
    file = tmp_path / "other.csv"
    file.write_text("question\nwhat?\n")
    with pytest.raises(DataError, match=r"row 1 is no prompt of XSTest: prompt: .*\['question'\]"):
        read_xstest(str(file))


def test_bbq_rows(tmp_path: Path) -> None:
    (tmp_path / "Age.jsonl").write_text(json.dumps(BBQ_ROW) + "\n")
    (question,) = read_bbq([str(tmp_path)])
    assert question.answers == ["The 78-year-old", "The 22-year-old", "Not known"]
    assert (question.label, question.unknown, question.target) == (2, 2, 0)


def test_a_question_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({**BBQ_ROW, "label": 7}) + "\n")
    with pytest.raises(DataError, match="row 1 is no question of BBQ: label"):
        read_bbq([str(tmp_path)])
    (tmp_path / "a.jsonl").write_text('{"category": "Age"}\n')
    with pytest.raises(DataError, match="row 1 is no question of BBQ: KeyError"):
        read_bbq([str(tmp_path / "a.jsonl")])


def test_the_target_is_found_by_group_by_label_and_by_crossed_group() -> None:
    unknown = ["Can't tell", "unknown"]
    assert find_target([["Japanese", "AsiaPacific"], ["British", "Europe"], unknown], ["British"]) == 1
    assert find_target([["Tyrone", "M-Black"], unknown, ["Donna", "F-White"]], ["Black", "African American"]) == 0
    assert find_target([["rich", "high SES"], unknown, ["poor", "lowSES"]], ["low SES"]) == 2
    assert find_target([["a", "x"], ["b", "y"], unknown], ["z"]) is None
    assert find_target([["a", "x"], ["b", "x"], unknown], ["x"]) is None, "two of one group tell nothing"


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data with the public files")
def test_the_public_files_are_read_whole() -> None:
    prompts = read_xstest(str(SHARED / "xstest" / "xstest_prompts.csv"))
    assert (len(prompts), sum(each.label == "safe" for each in prompts)) == (450, 250)
    questions = read_bbq([str(SHARED / "bbq")])
    assert len(questions) == 2400
    assert all(each.target is not None for each in questions)
