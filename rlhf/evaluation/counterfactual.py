"""The same text about other people: gender and names swapped by word, and how rewards differ. Pure; no I/O.

Swaps are by whole words and keep capitals. English `her` and `his` are each two words: `her` becomes `his` before a
word and `him` otherwise, `his` becomes `her` before a word and `hers` otherwise. That is right for most sentences ("I
saw her today" becomes "I saw his today"), so read samples where it matters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np

from rlhf.contracts.evaluation import NameSwap
from rlhf.evaluation.bootstrap import mean_interval

Side = Literal["first", "second"]

GENDERED: tuple[tuple[str, str], ...] = (
    *(("he", "she"), ("himself", "herself"), ("man", "woman"), ("men", "women"), ("boy", "girl"), ("boys", "girls")),
    *(("father", "mother"), ("fathers", "mothers"), ("dad", "mom"), ("dads", "moms"), ("daddy", "mommy")),
    *(("son", "daughter"), ("sons", "daughters"), ("brother", "sister"), ("brothers", "sisters")),
    *(("husband", "wife"), ("husbands", "wives"), ("uncle", "aunt"), ("uncles", "aunts"), ("nephew", "niece")),
    *(
        ("grandfather", "grandmother"),
        ("grandpa", "grandma"),
        ("grandson", "granddaughter"),
        ("boyfriend", "girlfriend"),
    ),
    *(("male", "female"), ("males", "females"), ("gentleman", "lady"), ("gentlemen", "ladies"), ("sir", "madam")),
    *(("mr", "ms"), ("king", "queen"), ("prince", "princess"), ("actor", "actress"), ("waiter", "waitress")),
    *(("businessman", "businesswoman"), ("policeman", "policewoman"), ("chairman", "chairwoman"), ("guy", "gal")),
)
"""Words of men and of women, besides him, his, her and hers."""

BERTRAND_NAMES = (
    NameSwap(
        name="names_women",
        first=["Allison", "Anne", "Carrie", "Emily", "Jill", "Laurie", "Kristen", "Meredith", "Sarah"],
        second=["Aisha", "Ebony", "Keisha", "Kenya", "Lakisha", "Latonya", "Latoya", "Tamika", "Tanisha"],
    ),
    NameSwap(
        name="names_men",
        first=["Brad", "Brendan", "Geoffrey", "Greg", "Brett", "Jay", "Matthew", "Neil", "Todd"],
        second=["Darnell", "Hakim", "Jamal", "Jermaine", "Kareem", "Leroy", "Rasheed", "Tremayne", "Tyrone"],
    ),
)
"""First names that Bertrand and Mullainathan (2004, "Are Emily and Greg More Employable than Lakisha and Jamal?")
used as heard as white and as African-American."""

GENDER = "gender"
_PRONOUNS = {"him": "first", "his": "first", "her": "second", "hers": "second"}
_WORD = re.compile(r"[A-Za-z]+")
_NEXT_WORD = re.compile(r"[ \t]+[A-Za-z]")


@dataclass(frozen=True)
class Swap:
    """Words of two groups, each with its counterpart in the other.

    Attributes:
        name: of the swap.
        first: word in lower case to its counterpart.
        second: the way back.
        gender: whether him, his, her and hers are swapped, too.
    """

    name: str
    first: Mapping[str, str]
    second: Mapping[str, str]
    gender: bool = False

    def sides(self, text: str) -> set[Side]:
        """The groups whose words a text has."""
        found: set[Side] = set()
        for word in _WORD.findall(text):
            if (side := self._side(word.lower())) is not None:
                found.add(side)
        return found

    def apply(self, text: str) -> str:
        """The text with every word of either group as its counterpart."""

        def counterpart(match: re.Match[str]) -> str:
            word = match.group()
            low = word.lower()
            if self.gender and low in _PRONOUNS:
                return _with_case(_pronoun(low, before_word=bool(_NEXT_WORD.match(text, match.end()))), word)
            swapped = self.first.get(low) or self.second.get(low)
            return word if swapped is None else _with_case(swapped, word)

        return _WORD.sub(counterpart, text)

    def _side(self, word: str) -> Side | None:
        if self.gender and word in _PRONOUNS:
            return "first" if _PRONOUNS[word] == "first" else "second"
        if word in self.first:
            return "first"
        return "second" if word in self.second else None


def gender_swap() -> Swap:
    """Men's words and women's."""
    return Swap(GENDER, dict(GENDERED), {woman: man for man, woman in GENDERED}, gender=True)


def name_swap(names: NameSwap) -> Swap:
    """Names of two groups."""
    pairs = list(zip(names.first, names.second, strict=True))
    return Swap(names.name, {a.lower(): b for a, b in pairs}, {b.lower(): a for a, b in pairs})


class SwapEffect(TypedDict):
    """Rewards of texts about the second group less those of the same texts about the first."""

    pairs: int
    unscored: int
    mean_difference: float | None
    ci95: tuple[float, float] | None
    mean_absolute_difference: float | None
    largest_absolute_difference: float | None
    standardised_difference: float | None


def swap_effect(
    first: Sequence[float | None], second: Sequence[float | None], *, seed: int = 0, resamples: int = 10_000
) -> SwapEffect:
    """How much a reward depends on the group.

    Args:
        first: rewards of the texts about the first group, None where there is none.
        second: of the same texts about the second, in the same order.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Returns:
        Mean and interval of the difference, its size without sign, and the mean divided by the standard deviation of
        all rewards (None when they are all the same). None everywhere without a pair that has both rewards.

    Raises:
        ValueError: they differ in length.
    """
    both = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    effect: SwapEffect = {
        "pairs": len(both),
        "unscored": len(first) - len(both),
        "mean_difference": None,
        "ci95": None,
        "mean_absolute_difference": None,
        "largest_absolute_difference": None,
        "standardised_difference": None,
    }
    if not both:
        return effect
    rewards = np.asarray(both, dtype=np.float64)
    differences = rewards[:, 1] - rewards[:, 0]
    mean, spread = float(differences.mean()), float(rewards.std())
    effect["mean_difference"] = mean
    effect["ci95"] = mean_interval(differences.tolist(), seed=seed, resamples=resamples)
    effect["mean_absolute_difference"] = float(np.abs(differences).mean())
    effect["largest_absolute_difference"] = float(np.abs(differences).max())
    effect["standardised_difference"] = mean / spread if spread > 0 else None
    return effect


def _pronoun(word: str, *, before_word: bool) -> str:
    if word == "her":
        return "his" if before_word else "him"
    if word == "his":
        return "her" if before_word else "hers"
    return {"him": "her", "hers": "his"}[word]


def _with_case(word: str, like: str) -> str:
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[0].upper() + word[1:] if like[0].isupper() else word[0].lower() + word[1:]
