"""What a trained ensemble is worth, measured on pairs whose prompts it has never seen. Becomes metrics.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlhf.evaluation.preferences import (
    accuracy_by_quartile,
    auroc,
    calibration_error,
    describe_distribution,
    fit_temperature,
    length_differences,
    length_preference,
    pairwise_accuracy,
    preference_nll,
    preference_uncertainty,
    wilson_interval,
)
from rlhf.lm.exchanges import Exchange
from services.trainer.reward_model.bags import mean_votes
from services.trainer.reward_model.data import EncodedPairs


@dataclass(frozen=True)
class Votes:
    """Standardised s_chosen - s_rejected of every member, [K, N]; NaN where a pair is not the member's to judge."""

    members: Tensor

    @property
    def mean(self) -> np.ndarray:
        """[N] the ensemble's difference."""
        return mean_votes(self.members)

    @property
    def score_spread(self) -> np.ndarray:
        """[N] population standard deviation of the differences over members, in units of the scores."""
        return self.members.std(0, correction=0).double().numpy()

    @property
    def temperatures(self) -> list[float]:
        """K: each member's own, fitted to these pairs."""
        return [fit_temperature(own[~own.isnan()].double().numpy()) for own in self.members]

    def probabilities(self, temperatures: Sequence[float]) -> np.ndarray:
        """[K, N] σ(difference / temperature) of each member at its own temperature."""
        own = torch.tensor(temperatures, dtype=torch.float64)[:, None]
        return (self.members.double() / own).sigmoid().numpy()


def measure(
    jury: Votes, evaluation: Votes, exchanges: list[Exchange], train: EncodedPairs, heldout: EncodedPairs
) -> dict[str, Any]:
    """All figures of the report.

    Args:
        jury: votes that set the temperatures.
        evaluation: votes on the pairs that measure.
        exchanges: of all pairs, for their lengths.
        train: the pairs learned from, for the length-only baseline's preference.
        heldout: the pairs that measure.
    """
    differences = evaluation.mean
    accuracy = pairwise_accuracy(differences)
    by_member = [pairwise_accuracy(row.double().numpy()) for row in evaluation.members]
    temperature = fit_temperature(jury.mean)
    baseline = _length_baseline(exchanges, train, heldout)
    return {
        "members": len(evaluation.members),
        "train_pairs": len(train),
        "jury_pairs": jury.members.shape[1],
        "eval_pairs": len(differences),
        "accuracy_ensemble": accuracy,
        "accuracy_ensemble_ci95": list(wilson_interval(accuracy, len(differences))),
        "accuracy_members": by_member,
        "accuracy_members_ci95": [list(wilson_interval(share, len(differences))) for share in by_member],
        "accuracy_length_baseline": pairwise_accuracy(baseline),
        "accuracy_jury": pairwise_accuracy(jury.mean),
        "nll": preference_nll(differences, temperature),
        "temperature": temperature,
        "ece": calibration_error(differences, temperature=temperature),
        "ece_before_temperature": calibration_error(differences),
        **_uncertainty_figures(evaluation, jury.temperatures),
    }


def _uncertainty_figures(votes: Votes, temperatures: Sequence[float]) -> dict[str, Any]:
    differences, wrong = votes.mean, votes.mean <= 0
    total, disagreement = preference_uncertainty(votes.probabilities(temperatures))
    return {
        "temperature_members": list(temperatures),
        "auroc_uncertainty": auroc(total, wrong),
        "auroc_disagreement": auroc(disagreement, wrong),
        # Clear pairs have large differences, and large differences spread more: in units of the scores the spread says
        # little about mistakes.
        "auroc_score_spread": auroc(votes.score_spread, wrong),
        "auroc_closeness": auroc(-np.abs(differences), wrong),
        "accuracy_by_uncertainty_quartile": accuracy_by_quartile(differences, total),
        "score_spread_mean": float(votes.score_spread.mean()),
    }


def describe_scores(scores: Tensor, chosen: Sequence[int], rejected: Sequence[int]) -> dict[str, dict[str, float]]:
    """How the ensemble's scores, and the members' deviations, lie.

    Args:
        scores: [K, N] standardised.
        chosen: columns of the preferred responses; one in several pairs counts in each.
        rejected: columns of the others.
    """
    means = scores.mean(0).double().numpy()
    return {
        "all": describe_distribution(means),
        "chosen": describe_distribution(means[list(chosen)]),
        "rejected": describe_distribution(means[list(rejected)]),
        "uncertainty": describe_distribution(scores.std(0, correction=0).double().numpy()),
    }


def standardised_votes(raw_differences: Tensor, reference_std: Tensor) -> Votes:
    """Votes from raw differences, [K, N]; the reference's mean cancels out."""
    return Votes(raw_differences / reference_std.cpu()[:, None])


def _length_baseline(exchanges: list[Exchange], train: EncodedPairs, heldout: EncodedPairs) -> np.ndarray:
    lengths = torch.tensor([len(exchange.response_ids) for exchange in exchanges])
    preference = length_preference(lengths[train.chosen].tolist(), lengths[train.rejected].tolist())
    return length_differences(lengths[heldout.chosen].tolist(), lengths[heldout.rejected].tolist(), preference)
