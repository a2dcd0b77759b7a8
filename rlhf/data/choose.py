"""Which pairs of a data set are used, when it has more than are wanted: whole prompts, balanced over their types."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Iterable

from rlhf.contracts.base import prompt_key
from rlhf.contracts.jobs import PreferencePair
from rlhf.data.formats import TypedPair


def choose_balanced(pairs: Iterable[TypedPair], count: int, *, seed: int) -> list[PreferencePair]:
    """Takes prompts of each type in turn, with all their pairs, until there are enough pairs.

    A type that runs out leaves its turns to the others. Pairs of a prompt stay together, so that a split by prompt has
    as many prompts as it seems.

    Args:
        pairs: of the data set; one without a type is of a type of its own.
        count: pairs wanted; where the last prompt has more than are missing, its others are left out.
        seed: draws the prompts.
    """
    by_type: dict[str, dict[str, list[PreferencePair]]] = defaultdict(lambda: defaultdict(list))
    for each in pairs:
        by_type[each.kind or ""][prompt_key(each.pair.prompt)].append(each.pair)
    draw = random.Random(seed)
    queues: deque[deque[list[PreferencePair]]] = deque()
    for kind in sorted(by_type):
        prompts = list(by_type[kind].values())
        draw.shuffle(prompts)
        queues.append(deque(prompts))
    chosen: list[PreferencePair] = []
    while queues and len(chosen) < count:
        queue = queues.popleft()
        chosen += queue.popleft()
        if queue:
            queues.append(queue)
    return chosen[:count]
