"""How far annotators agree beyond chance, for labels without an order. Pure functions; no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Cohen's κ = (p_o - p_e) / (1 - p_e) of two annotators (Cohen 1960, eq. 1).

    Args:
        first: labels of one annotator.
        second: labels of the other on the same items, in the same order.

    Returns:
        At most 1; 0 is chance. None where both gave one and the same label to everything: then p_e = 1.

    Raises:
        ValueError: they differ in length, or there is no item.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} labels and {len(second)}; pass both annotators' labels of the same items")
    if not first:
        raise ValueError("got 0 items, and agreement on nothing is undefined; pass at least one")
    n = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    left, right = Counter(first), Counter(second)
    # In whole numbers, so that agreement by one label alone is seen exactly.
    expected = sum(count * right[label] for label, count in left.items())
    return None if expected == n * n else (observed - expected / n**2) / (1 - expected / n**2)


def krippendorff_alpha(ratings: Sequence[Sequence[Hashable | None]]) -> float | None:
    """Krippendorff's α for nominal labels: any number of annotators, and labels may be missing.

    α = 1 - (n - 1)·Σ o_ck / Σ n_c·n_k over c ≠ k, with o the coincidence matrix (Krippendorff 2011, "Computing
    Krippendorff's Alpha-Reliability", section C).

    Args:
        ratings: a row an annotator, of labels of the same items in the same order; None is a missing label.

    Returns:
        At most 1; 0 is chance. None where it is undefined: no item has two labels, or all pairable labels are one.

    Raises:
        ValueError: the rows differ in length.
    """
    lengths = {len(row) for row in ratings}
    if len(lengths) > 1:
        raise ValueError(f"annotators have {sorted(lengths)} labels; pass one of each item, None where it is missing")
    totals: Counter[Hashable] = Counter()
    disagreement = 0.0
    for item in zip(*ratings, strict=True):
        labels = Counter(label for label in item if label is not None)
        count = labels.total()
        if count < 2:
            continue
        totals += labels
        # Ordered pairs of unlike labels, each weighted 1 / (m_u - 1): this item's part of Σ o_ck.
        disagreement += (count**2 - sum(each**2 for each in labels.values())) / (count - 1)
    n = totals.total()
    expected = n**2 - sum(each**2 for each in totals.values())
    return None if expected == 0 else 1 - (n - 1) * disagreement / expected
