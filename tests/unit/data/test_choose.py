"""Fewer pairs than there are: balanced over types of prompts, whole prompts, the same for the same seed."""

from collections import Counter

from rlhf.contracts.jobs import PreferencePair
from rlhf.data.choose import choose_balanced
from rlhf.data.formats import TypedPair


def pairs_of(kind: str, prompts: int, each: int = 1) -> list[TypedPair]:
    return [
        TypedPair(PreferencePair(prompt=f"{kind} {prompt}", chosen=f"good {i}", rejected="bad"), kind)
        for prompt in range(prompts)
        for i in range(each)
    ]


def kinds(pairs: list[PreferencePair]) -> Counter[str]:
    return Counter(str(pair.prompt).split()[0] for pair in pairs)


def test_types_share_alike_until_one_runs_out() -> None:
    data = [*pairs_of("many", 100), *pairs_of("some", 20), *pairs_of("few", 2)]
    assert kinds(choose_balanced(data, 30, seed=0)) == {"many": 14, "some": 14, "few": 2}


def test_all_pairs_of_a_prompt_come_together() -> None:
    chosen = choose_balanced(pairs_of("a", 10, each=3), 9, seed=0)
    assert sorted(Counter(str(pair.prompt) for pair in chosen).values()) == [3, 3, 3]


def test_the_seed_decides() -> None:
    data = pairs_of("a", 50)
    assert choose_balanced(data, 10, seed=1) == choose_balanced(data, 10, seed=1)
    assert choose_balanced(data, 10, seed=1) != choose_balanced(data, 10, seed=2)


def test_fewer_pairs_than_wanted_are_all_taken() -> None:
    assert len(choose_balanced(pairs_of("a", 5), 100, seed=0)) == 5
