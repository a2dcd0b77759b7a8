"""Prompts that begin alike: what is computed, what is taken over, and that it is the same."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from services.policy.engine.prefill import Prefill
from services.policy.engine.prefixes import PrefixLibrary, common_length, known_columns, shared_ids
from services.policy.engine.rows import Extras
from tests.unit.policy.generating import Served, forward_shapes, make_rows, prefilled

SYSTEM = list(range(20, 32))
ONE, TWO, THREE = [*SYSTEM, 1, 2, 3, 4], [*SYSTEM, 5, 6], [*SYSTEM, 7, 8, 9, 10, 11, 12]
TOKENS = st.lists(st.integers(0, 2), max_size=12).map(tuple)


@given(TOKENS, TOKENS)
def test_common_length_is_what_a_loop_finds(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    expected = 0
    while expected < min(len(a), len(b)) and a[expected] == b[expected]:
        expected += 1
    assert common_length(a, b) == expected


def test_known_columns_count_the_pads_of_shorter_prompts() -> None:
    """Columns of [1 2 3 4 5] and [1 2 9], the latter behind two pads: column 2 begins 3 4 5 and 1 2 9."""
    prompts = [(1, 2, 3, 4, 5), (1, 2, 9)]
    assert known_columns(prompts, (1, 2)) == 2  # the short one still computes its 1 and 2
    assert known_columns(prompts, (1, 2, 3, 4)) == 4  # 4 of the long one; pads and 1 2 of the short one
    assert known_columns([(1, 2, 3)], (1, 2, 3)) == 2  # the last column gives the logits
    assert known_columns(prompts, (7,)) == 0
    assert shared_ids(prompts) == (1, 2)


def begin(library: PrefixLibrary, served: Served, prompts: list[list[int]], adapter: str | None = None) -> Prefill:
    """A prefill as the engine computes it."""
    prefill = Prefill(served.forward, make_rows(served.base, prompts))
    library.begin(adapter, prefill)
    while not prefill.done:
        prefill.advance(4096)
    library.remember(adapter, prefill)
    return prefill


def test_prompts_that_begin_as_an_earlier_one_compute_the_rest_alone(served: Served) -> None:
    library = PrefixLibrary(served.forward, 1000)
    begin(library, served, [ONE])
    with forward_shapes(served.forward) as shapes:
        found = begin(library, served, [TWO, THREE])
    # The longest has 18 tokens, 12 of them known; the other is computed from the same column on.
    assert shapes == [(2, 6)]
    expected = prefilled(served, make_rows(served.base, [TWO, THREE]))
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-5)
    for mine, theirs in zip(found.cache.layers, expected.cache.layers, strict=True):
        # Row 0 has four pads, whose columns nobody reads.
        torch.testing.assert_close(mine.keys[0, :, 4:], theirs.keys[0, :, 4:], rtol=0, atol=1e-5)
        torch.testing.assert_close(mine.values[1], theirs.values[1], rtol=0, atol=1e-5)


def test_prompts_that_come_together_compute_what_they_share_once(served: Served) -> None:
    library = PrefixLibrary(served.forward, 1000)
    with forward_shapes(served.forward) as shapes:
        found = begin(library, served, [ONE, TWO, THREE])
    assert shapes == [(1, 12), (3, 6)]
    expected = prefilled(served, make_rows(served.base, [ONE, TWO, THREE]))
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-5)


def test_the_same_prompt_again_computes_its_last_token(served: Served) -> None:
    library = PrefixLibrary(served.forward, 1000)
    begin(library, served, [ONE])
    with forward_shapes(served.forward) as shapes:
        begin(library, served, [ONE])
    assert shapes == [(1, 1)]


def test_an_adapter_takes_over_nothing_of_another_policy(served: Served) -> None:
    library = PrefixLibrary(served.forward, 1000)
    begin(library, served, [ONE])
    with forward_shapes(served.forward) as shapes:
        begin(library, served, [ONE], adapter="job@1")
    assert shapes == [(1, 16)]


def test_who_wants_the_prompts_log_probabilities_has_all_of_it_computed(served: Served) -> None:
    library = PrefixLibrary(served.forward, 1000)
    begin(library, served, [ONE])
    prefill = Prefill(served.forward, make_rows(served.base, [ONE], Extras(prompt_logprobs=True)))
    assert library.begin(None, prefill) == 0


def test_no_more_tokens_are_kept_than_allowed(served: Served) -> None:
    library = PrefixLibrary(served.forward, 20)
    begin(library, served, [ONE])
    begin(library, served, [[99, *TWO]])  # 15 tokens: the 16 of the first one have to go
    with forward_shapes(served.forward) as shapes:
        begin(library, served, [ONE])
        begin(PrefixLibrary(served.forward, 0), served, [ONE])
    assert shapes == [(1, 16), (1, 16)]
