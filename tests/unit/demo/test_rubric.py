"""The rubric: what it rewards, and that the cheap tricks do not pay."""

import pytest

from rlhf.demo.rubric import score

QUESTION = "Why do cats purr?"
GOOD = "Cats purr to calm themselves and to show that they feel safe."
CUT = (
    "Cats purr for many different reasons, and scientists have studied this for years. Purring is a low sound "
    "that comes from the throat of the cat and that can be"
)
GOOD_ANSWERS = [
    (QUESTION, GOOD),
    ("How do I boil an egg?", "Put the egg in boiling water for eight minutes, then cool it under cold water."),
    ("List three fruits that are red.", "Three red fruits are apples, cherries and strawberries."),
    ("Rewrite this sentence to be more polite: Close the window.", "Could you please close the window for me?"),
    ("I feel nervous before exams. What should I do?", "Breathe slowly before the exams when you feel nervous."),
    ("I just got a new puppy!", "How lovely, a new puppy will keep you busy and happy!"),
    (
        "Summarize in one sentence: A storm damaged the harbor last night. No one was hurt, but six boats sank.",
        "A storm in the harbor sank six boats, but nobody was hurt.",
    ),
]


@pytest.mark.parametrize(("prompt", "response"), GOOD_ANSWERS)
def test_good_short_answer_scores_high(prompt, response):
    assert score(prompt, response).total >= 0.85


def test_good_short_answer_beats_a_truncated_long_one():
    assert score(QUESTION, GOOD).total > score(QUESTION, CUT).total + 0.4


def test_total_is_the_documented_product():
    # 25 words or fewer, topic met, nothing repeated, nothing cut: every part is 1, and 0.05 + 0.25 + 0.50 + 0.20 = 1.
    assert score(QUESTION, GOOD).total == pytest.approx(1.0)
    # "cat" of the prompt's {cat, purr} is mentioned, and ceil(0.6 * 2) = 2 are enough: topic 1/2, the rest is 1.
    # 0.05 + 0.25 + 0.50 * 0.5 + 0.20 = 0.75
    half = score(QUESTION, "Cats do this when they are calm and feel safe.")
    assert half.topic == pytest.approx(0.5)
    assert half.total == pytest.approx(0.75)


@pytest.mark.parametrize("prompt", [prompt for prompt, _ in GOOD_ANSWERS])
def test_one_word_answer_does_not_pay(prompt):
    for response in ("Yes.", "Purring.", "Apples.", "Cats."):
        assert score(prompt, response).total < 0.35


@pytest.mark.parametrize("prompt", [prompt for prompt, _ in GOOD_ANSWERS])
def test_echo_of_the_prompt_does_not_pay(prompt):
    for response in (prompt, f"{prompt} {prompt}", f"The answer to your question is: {prompt}"):
        assert score(prompt, response).total < 0.35


@pytest.mark.parametrize(
    "heap",
    [
        "Cat purr throat vibration calm happy sound muscle.",
        "cats, purr, throat, vibration, calm, happy, sound, muscle.",
        "The cat the purr the throat the sound the muscle the calm.",
        "Cat and, purr and, throat and, sound and, muscle and, calm.",
        "1. Cats 2. purr 3. cats 4. purr 5. throat.",
    ],
)
def test_heap_of_keywords_does_not_pay(heap):
    assert score(QUESTION, heap).total < 0.4


@pytest.mark.parametrize(
    "heap",
    ["Fruits red color apple fruit red sweet.", "Three, fruits, that, are, red.", "Red red red fruits, red fruits."],
)
def test_heap_of_keywords_is_no_list(heap):
    assert score("List three fruits that are red.", heap).total < 0.4


@pytest.mark.parametrize(
    "loop",
    [
        "Cats purr because they are happy. " * 4,
        "Cats purr, and cats purr, and cats purr, and cats purr, and cats purr.",
        "Cats purr when they are very very very very calm and happy.",
        "A: A: A: A: A: A: A: A: A: A.",
    ],
)
def test_loop_does_not_pay(loop):
    assert score(QUESTION, loop).total < 0.3


def test_empty_phrases_cost():
    filler = score(QUESTION, "Great question! Cats purr to calm themselves and to show that they feel safe.")
    assert filler.plain == pytest.approx(0.7)
    twice = score(QUESTION, "As an AI, I'd be happy to say that cats purr to show that they feel safe.")
    assert twice.plain == pytest.approx(0.7**2)
    typographic = score(QUESTION, "I\u2019d be happy to say that cats purr to show that they feel safe.")
    assert typographic.plain == pytest.approx(0.7)


def test_length_has_two_ramps():
    # 1 word 0, 5 words 1, straight between: 3 words are (3 - 1) / (5 - 1) = 0.5.
    assert score(QUESTION, "Cats feel safe.").length == pytest.approx(0.5)
    # 25 words 1, 50 words 0: 40 words are 1 - 15 / 25 = 0.4. One comma-free sentence of 4 * 10 words.
    words = [f"{letter}{vowel}n" for letter in "bcdfghjklm" for vowel in "aeiu"]
    assert score(QUESTION, " ".join(words) + ".").length == pytest.approx(0.4)
    # Four sentences are more than "one or two short ones": 0.7 of 1.
    assert score(QUESTION, "Cats are calm. They feel safe. They are happy. That helps.").length == pytest.approx(0.7)


def test_being_cut_off_costs_by_what_is_unfinished():
    nothing_finished = score(QUESTION, "Cats purr because they feel calm and because the")
    assert nothing_finished.finish == pytest.approx(0.15)
    # 0.15 + 0.30 * 20 / 40: "Cats purr when calm." is 20 characters of 40.
    half = score(QUESTION, "Cats purr when calm. They also do it for")
    assert half.finish == pytest.approx(0.30)
    assert score(QUESTION, "Cats purr when calm. They also do it.").finish == 1.0


def test_list_wants_its_items():
    prompt = "List three fruits that are red."
    right = score(prompt, "1. Apples\n2. Cherries\n3. Strawberries")
    short_by_two = score(prompt, "1. Apples")
    assert right.topic == pytest.approx(0.5)  # three items, none of the prompt's words: 0.5 * 0 + 0.5 * 1
    assert right.total > 2 * short_by_two.total


def test_rewrite_has_to_change_something():
    prompt = "Correct the mistakes in this sentence: She go to school every days."
    assert score(prompt, "She goes to school every day.").total > 0.85
    assert score(prompt, "She go to school every days.").total < 0.1


def test_extract_is_no_summary_but_no_echo_either():
    prompt = "Summarize in one sentence: A storm damaged the harbor last night. No one was hurt, but six boats sank."
    assert score(prompt, "A storm damaged the harbor last night.").fresh == pytest.approx(0.35)


@pytest.mark.parametrize("response", ["", "   ", "...", "1.", "!?"])
def test_wordless_response_scores_nothing(response):
    assert score(QUESTION, response).total <= 0.05


def test_every_part_is_a_share():
    responses = [GOOD, CUT, "Yes.", "", "a" * 500, "cat " * 100, "https://x.y/1/2/3?4", QUESTION, "1.\n2.\n3."]
    for prompt, _ in [*GOOD_ANSWERS, ("", ""), ("Hi, how are you today?", "")]:
        for response in responses:
            result = score(prompt, response)
            assert all(0.0 <= part <= 1.0 for part in vars(result).values())
