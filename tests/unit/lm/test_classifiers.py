"""Classifiers give what transformers gives for the conversation alone, in any company and at any length."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rlhf.contracts.base import Message, Prompt
from rlhf.contracts.errors import ScoringFailed
from rlhf.lm.classifiers import load_classifier
from tests.tiny_models import (
    save_tiny_bert_classifier,
    save_tiny_llama,
    save_tiny_llama_classifier,
    save_tiny_roberta_classifier,
)

EOS = 257
SAMPLES: list[tuple[Prompt, str]] = [
    ("Hi", "Hello."),
    ("Why is the sky blue?", "Air scatters blue light."),
    (
        [Message(role="user", content="a"), Message(role="assistant", content="b"), Message(role="user", content="c")],
        "d",
    ),
    ("x", "<|im_end|>"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifiers")
    save_tiny_llama_classifier(folder / "llama")
    save_tiny_llama_classifier(folder / "llama-eos", pad=EOS)
    save_tiny_llama_classifier(folder / "three", labels=3)
    save_tiny_bert_classifier(folder / "bert")
    save_tiny_roberta_classifier(folder / "roberta")
    return folder


def turns(prompt: Prompt) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [turn.model_dump() for turn in prompt]


@torch.no_grad()
def of_transformers(folder: Path, prompt: Prompt, response: str) -> list[float]:
    """All logits, as a model's card would have them computed."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    if tokenizer.chat_template:
        chat = [*turns(prompt), {"role": "assistant", "content": response}]
        ids = tokenizer.apply_chat_template(chat, tokenize=True, return_tensors="pt", return_dict=True)["input_ids"]
        return model(input_ids=ids).logits[0].tolist()
    text = "\n".join(turn["content"] for turn in turns(prompt))
    return model(**tokenizer(text, response, return_tensors="pt")).logits[0].tolist()


@pytest.mark.parametrize("family", ["llama", "llama-eos", "bert"])
@pytest.mark.parametrize("budget", [1, 100, 4096])
def test_scores_are_those_of_transformers_for_each_alone(folder: Path, family: str, budget: int) -> None:
    classifier = load_classifier(str(folder / family))
    samples = SAMPLES if family != "bert" else SAMPLES[:3]
    scores = classifier.score([classifier.encode(*sample) for sample in samples], token_budget=budget)
    expected = [of_transformers(folder / family, *sample)[0] for sample in samples]
    assert scores == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 1e-2


def test_without_a_pad_token_the_last_token_counts_even_if_it_looks_like_one(folder: Path) -> None:
    classifier = load_classifier(str(folder / "llama"))
    classifier.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    # Byte-level ids of these letters are small: among those tried as pads.
    rows = [classifier.encode("a", response) for response in ("!", '"b', "##")]
    assert {row.ids[-1] for row in rows} & {0, 1, 2}
    alone = [classifier.score([row], token_budget=999)[0] for row in rows]
    assert classifier.score(rows, token_budget=999) == pytest.approx(alone, abs=1e-5)
    assert classifier.model.config.pad_token_id is None


def test_the_score_is_the_output_of_the_label(folder: Path) -> None:
    prompt, response = SAMPLES[1]
    expected = of_transformers(folder / "three", prompt, response)
    for label, index in ((0, 0), (2, 2), ("LABEL_1", 1)):
        classifier = load_classifier(str(folder / "three"), label=label)
        (score,) = classifier.score([classifier.encode(prompt, response)], token_budget=99)
        assert score == pytest.approx(expected[index], abs=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("three", {}, r"outputs 0 \(LABEL_0\), 1 \(LABEL_1\), 2 \(LABEL_2\) and label is null; name the one"),
        ("three", {"label": 3}, r"label=3 is no output of .*three; it has 0 \(LABEL_0\)"),
        ("three", {"label": "good"}, "label='good' is no output"),
        ("bert", {"max_length": 65}, "max_length=65 exceeds the 64 tokens"),
        ("roberta", {"max_length": 33}, "max_length=33 exceeds the 32 tokens"),
    ],
)
def test_what_a_model_does_not_have_is_refused(folder: Path, name: str, options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_classifier(str(folder / name), **options)


def test_a_model_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    save_tiny_llama(tmp_path)
    with pytest.raises(ValueError, match=r"has no score\.weight, so that its scores would be random"):
        load_classifier(str(tmp_path), label=0)


def test_pickled_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "llama", tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        load_classifier(str(tmp_path))


def test_a_long_prompt_loses_its_beginning_and_never_its_response(folder: Path) -> None:
    # In the template "z" * 9 ends in 9 tokens, <|im_end|> and a line's end; 21 more of 32 are the prompt's.
    chat = load_classifier(str(folder / "llama"), max_length=32)
    row, whole = chat.encode("y" * 100, "z" * 9), load_classifier(str(folder / "llama")).encode("y" * 100, "z" * 9)
    assert (row.truncated, whole.truncated) == (True, False)
    # The token that begins every text stays, and the end is the same.
    assert row.ids == [whole.ids[0], *whole.ids[-31:]]
    # [CLS] prompt [SEP] response [SEP]: 32 - 3 - 9 of the prompt.
    pair = load_classifier(str(folder / "bert"), max_length=32)
    row = pair.encode("a" * 15 + "b" * 20, "z" * 9)
    b, z = pair.tokenizer.convert_tokens_to_ids(["b", "z"])
    assert row.ids == [2, *[b] * 20, 3, *[z] * 9, 3]
    assert row.types == [0] * 22 + [1] * 10
    assert row.truncated


@pytest.mark.parametrize(("family", "most"), [("llama", 32 - 3 - 1), ("bert", 32 - 3 - 1)])
def test_a_response_that_does_not_fit_is_a_failure(folder: Path, family: str, most: int) -> None:
    classifier = load_classifier(str(folder / family), max_length=32)
    assert len(classifier.encode("y" * 100, "z" * most).ids) == 32
    with pytest.raises(ScoringFailed, match=rf"the response has {most + 1} tokens, and this model reads 32"):
        classifier.encode("y" * 100, "z" * (most + 1))
    with pytest.raises(ScoringFailed, match="has no token"):
        classifier.encode("y", "")


def test_positions_that_count_from_the_pad_token_hold_fewer(folder: Path) -> None:
    classifier = load_classifier(str(folder / "roberta"))
    assert classifier.max_length == 32
    (score,) = classifier.score([classifier.encode("y" * 100, "z" * 9)], token_budget=99)
    assert score == score
