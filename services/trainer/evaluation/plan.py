"""Which sections an evaluation has, and how many units of work they are. No I/O."""

from __future__ import annotations

from rlhf.contracts.evaluation import EvaluationJobConfig, Measurements
from services.trainer.evaluation.bbq import Bbq
from services.trainer.evaluation.red_team import RedTeam
from services.trainer.evaluation.responses import Responses
from services.trainer.evaluation.safety import XsTest
from services.trainer.evaluation.section import Section, Sides
from services.trainer.evaluation.swaps import Swaps


def make_sections(config: Measurements, adapter: str) -> list[Section]:
    """The sections that are asked for, in the order in which they are done. Args: config; adapter, that is measured."""
    sides: Sides = {"adapter": adapter, "baseline": config.baseline}
    judge = {"aggregation": config.aggregation, "seed": config.seed}
    sections: list[Section] = []
    if config.responses is not None:
        sections.append(Responses(config.responses, sides, reward_model=config.reward_model, **judge))  # type: ignore[arg-type]
    if config.xstest is not None:
        sections.append(XsTest(config.xstest, sides))
    if config.bbq is not None:
        sections.append(Bbq(config.bbq, sides))
    if config.counterfactual is not None and config.reward_model is not None:
        sections.append(Swaps(config.counterfactual, reward_model=config.reward_model, **judge))  # type: ignore[arg-type]
    if config.red_team is not None:
        sections.append(RedTeam(config.red_team, sides))
    return sections


def total_units(config: EvaluationJobConfig) -> int:
    """Steps of the job."""
    return sum(section.units for section in make_sections(config, config.adapter))
