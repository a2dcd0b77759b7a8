"""What a trained ensemble is worth, measured on pairs whose prompts it has never seen. Becomes metrics.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlhf.lm.exchanges import Exchange
from services.trainer.reward_model.data import EncodedPairs
from services.trainer.reward_model.metrics import (
    accuracy_by_quartile,
    auroc,
    calibration_error,
    fit_temperature,
    length_differences,
    length_preference,
    pairwise_accuracy,
    preference_nll,
    wilson_interval,
)


@dataclass(frozen=True)
class Votes:
    """Standardised s_chosen - s_rejected of every member, [K, N]."""

    members: Tensor

    @property
    def mean(self) -> np.ndarray:
        """[N] the ensemble's difference."""
        return self.members.mean(0).double().numpy()

    @property
    def score_spread(self) -> np.ndarray:
        """[N] population standard deviation of the differences over members, in units of the scores."""
        return self.members.std(0, correction=0).double().numpy()

    def disagreement(self, temperature: float) -> np.ndarray:
        """[N] population standard deviation over members of σ(difference / temperature), their votes' probabilities."""
        return (self.members.double() / temperature).sigmoid().std(0, correction=0).numpy()


def measure(
    validation: Votes, evaluation: Votes, exchanges: list[Exchange], train: EncodedPairs, heldout: EncodedPairs
) -> dict[str, Any]:
    """All figures of the report.

    Args:
        validation: votes on the pairs that set the temperature.
        evaluation: votes on the pairs that measure.
        exchanges: of all pairs, for their lengths.
        train: the pairs learned from, for the length-only baseline's preference.
        heldout: the pairs that measure.
    """
    differences = evaluation.mean
    accuracy = pairwise_accuracy(differences)
    temperature = fit_temperature(validation.mean)
    low, high = wilson_interval(accuracy, len(differences))
    baseline = _length_baseline(exchanges, train, heldout)
    disagreement, wrong = evaluation.disagreement(temperature), differences <= 0
    return {
        "members": len(evaluation.members),
        "train_pairs": len(train),
        "validation_pairs": validation.members.shape[1],
        "eval_pairs": len(differences),
        "accuracy_ensemble": accuracy,
        "accuracy_ensemble_ci95": [low, high],
        "accuracy_members": [pairwise_accuracy(row.double().numpy()) for row in evaluation.members],
        "accuracy_length_baseline": pairwise_accuracy(baseline),
        "accuracy_validation": pairwise_accuracy(validation.mean),
        "nll": preference_nll(differences, temperature),
        "temperature": temperature,
        "ece": calibration_error(differences, temperature=temperature),
        "ece_before_temperature": calibration_error(differences),
        # Clear pairs have large differences, and large differences spread more: in units of the scores the spread says
        # little about mistakes. In units of the vote it does, though no better than how close the vote is.
        "auroc_uncertainty": auroc(disagreement, wrong),
        "auroc_score_spread": auroc(evaluation.score_spread, wrong),
        "auroc_closeness": auroc(-np.abs(differences), wrong),
        "accuracy_by_uncertainty_quartile": accuracy_by_quartile(differences, disagreement),
        "score_spread_mean": float(evaluation.score_spread.mean()),
    }


def standardised_votes(raw_differences: Tensor, reference_std: Tensor) -> Votes:
    """Votes from raw differences, [K, N]; the reference's mean cancels out."""
    return Votes(raw_differences / reference_std.cpu()[:, None])


def _length_baseline(exchanges: list[Exchange], train: EncodedPairs, heldout: EncodedPairs) -> np.ndarray:
    lengths = torch.tensor([len(exchange.response_ids) for exchange in exchanges])
    preference = length_preference(lengths[train.chosen].tolist(), lengths[train.rejected].tolist())
    return length_differences(lengths[heldout.chosen].tolist(), lengths[heldout.rejected].tolist(), preference)
