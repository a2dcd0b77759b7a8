import pytest

from rlhf.contracts.base import Message
from rlhf.data.prompts import read_prompts
from rlhf.data.sources import DataError, Row

HI = Message(role="user", content="Hi")


def turns(*contents: str) -> list[dict[str, str]]:
    return [
        {"role": "assistant" if i % 2 else "user", "content": text, "source": "x"} for i, text in enumerate(contents)
    ]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "Hi", "messages": []}, "Hi"),
        ({"prompt": turns("Hi"), "chosen": "a"}, [HI]),
        ({"instruction": "Sum up.", "input": "A long text."}, "Sum up.\nA long text."),
        ({"instruction": "Sum up.", "input": "", "completions": []}, "Sum up."),
        ({"messages": turns("Hi", "Hello.")}, [HI]),
        ({"messages": turns("Hi")}, [HI]),
        ({"prompt": None, "chosen": turns("Hi", "Hello."), "rejected": turns("Hi", "No.")}, [HI]),
        ({"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: No."}, [HI]),
    ],
)
def test_a_row_gives_its_prompt(row: Row, expected: object) -> None:
    assert read_prompts([row]).prompts == [expected]


def test_equal_empty_and_answered_prompts_are_left_out_with_their_reason() -> None:
    found = read_prompts([{"prompt": "Hi"}, {"prompt": turns("Hi")}, {"prompt": " "}, {"prompt": turns("Hi", "Yes?")}])
    assert found.prompts == ["Hi"]
    assert found.rows == 4
    assert found.left_out == {
        "the same prompt came before": 1,
        "the prompt is empty": 1,
        "the prompt ends with the assistant's turn": 1,
    }


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ({"text": "Hi"}, "none of the columns prompt, instruction, messages or chosen .* it has text: str"),
        ({"prompt": 3}, "it has prompt: int"),
        ({"prompt": [{"role": "robot", "content": "Hi"}]}, "it has prompt: list"),
    ],
)
def test_a_row_without_a_prompt_is_named(row: Row, part: str) -> None:
    with pytest.raises(DataError, match=f"row 2: .*{part}"):
        read_prompts([{"prompt": "Hi"}, row])


def test_no_rows_are_told() -> None:
    with pytest.raises(DataError, match="no rows"):
        read_prompts([])
