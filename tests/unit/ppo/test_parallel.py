"""Who computes which rows. That several processes come to one process's gradient: tests/integration/ppo."""

from collections.abc import Sequence

import pytest
import torch

from services.trainer.ppo.collate import Row, collate
from services.trainer.ppo.parallel import Shares, Team, share_rows
from services.trainer.ppo.update import shuffled_minibatches
from tests.unit.ppo.stand_in import random_batch


def rows_of(*lengths: int) -> list[Row]:
    return [Row(*[torch.zeros(length, dtype=torch.int64)] * 6) for length in lengths]


def shares(size: int, rows: Sequence[Row], minibatches: Sequence[Sequence[int]], budget: int = 100) -> list[Shares]:
    """As each of the processes sees it."""
    return [share_rows(Team(rank, size), rows, minibatches, budget) for rank in range(size)]


def test_alone_a_process_has_every_row() -> None:
    rows = rows_of(5, 3, 4)
    (alone,) = shares(1, rows, [[0, 1, 2]], budget=8)
    # Longest first: 5 and 4 would be padded to 2 x 5 tokens, which passes 8; 4 and 3 to 2 x 4.
    assert alone.microbatches(range(3)) == [[0], [2, 1]]


def test_each_row_has_one_owner_and_tokens_are_balanced_within_a_minibatch() -> None:
    # The minibatch of rows 0 to 3 has 9 + 1 and 5 + 5 tokens to give, that of 4 and 5 one row for each process.
    first, second = shares(2, rows_of(9, 1, 5, 5, 7, 7), [[0, 1, 2, 3], [4, 5]])
    assert first.owners == second.owners
    loads = [sum(first.lengths[i] for i in range(4) if first.owners[i] == rank) for rank in (0, 1)]
    assert loads == [10, 10]
    assert first.owners[4] != first.owners[5]


def test_balance_holds_in_every_epochs_minibatches() -> None:
    rows = collate([random_batch(7, prompts=64)], row_tokens=60).rows
    minibatches = [rows_ for epoch in range(4) for rows_ in shuffled_minibatches(len(rows), 2, 11, epoch)]
    share = shares(4, rows, minibatches)[0]
    for minibatch in [*minibatches, range(len(rows))]:
        loads = [sum(share.lengths[i] for i in minibatch if share.owners[i] == rank) for rank in range(4)]
        assert max(loads) < 1.2 * sum(loads) / 4


@pytest.mark.parametrize("size", [2, 3, 5])
def test_all_processes_do_equally_many_passes_and_every_row_once(size: int) -> None:
    rows = rows_of(60, 40, 30, 20, 10, 10, 10)
    for minibatch in ([0, 1, 2, 3, 4, 5, 6], [0], [2, 5]):
        passes = [share.microbatches(minibatch) for share in shares(size, rows, [minibatch], budget=64)]
        assert len({len(each) for each in passes}) == 1
        assert sorted(row for each in passes for part in each for row in part) == minibatch
        # Nobody waits in vain: some process has work in each of the passes.
        assert all(any(each[turn] for each in passes) for turn in range(len(passes[0])))
