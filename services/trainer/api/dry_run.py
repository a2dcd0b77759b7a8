"""`POST /jobs?dry_run=true`: everything that a submission checks, then an estimate in place of a job."""

from __future__ import annotations

from typing import Any

from rlhf.contracts.estimate import Estimate, MemoryEstimate, ModelFacts, TimeEstimate, WorkEstimate
from rlhf.contracts.evaluation import EvaluationJobConfig
from rlhf.contracts.jobs import AnyJobConfig, PpoJobConfig, RewardModelJobConfig
from services.trainer.api.pace import estimate_time
from services.trainer.api.served_model import Model, find_model
from services.trainer.api.submission import Desk, check
from services.trainer.estimate import reward_model
from services.trainer.estimate.flops import ppo_step_flops
from services.trainer.estimate.ppo_load import CHARACTERS_PER_TOKEN, TEMPLATE_TOKENS, StepLoad, step_load
from services.trainer.estimate.ppo_memory import learner_memory, policy_memory
from services.trainer.estimate.shape import DTYPE_BYTES
from services.trainer.evaluation.plan import total_units

ALWAYS = (
    f"{CHARACTERS_PER_TOKEN} characters make a token, and a chat template adds {TEMPLATE_TOKENS} tokens to a prompt",
    "memory is without the process itself and its libraries, and without what its allocator keeps in reserve",
)
OF_PPO = (
    "every response is as long as rollout.max_new_tokens lets it be",
    "operations are without the reward service's",
)


def dry_run(desk: Desk, config: AnyJobConfig) -> Estimate:
    """Checks a job and says what it would take. Nothing is written.

    Args:
        desk: where jobs come in.
        config: validated.

    Raises:
        InvalidInput: as for a submission.
    """
    check(desk, config)
    match config:
        case PpoJobConfig():
            return _estimate_ppo(desk, config)
        case RewardModelJobConfig():
            return _estimate_reward_model(desk, config)
        case EvaluationJobConfig():
            return _estimate_evaluation(config)


def _estimate_ppo(desk: Desk, config: PpoJobConfig) -> Estimate:
    model, size = find_model(desk.settings), DTYPE_BYTES[desk.settings.dtype]
    load = step_load(config, packs=not isinstance(model, Model) or model.shape.packs)
    told: dict[str, Any] = {"kind": "ppo", "work": _ppo_work(config, load), "assumptions": [*ALWAYS, *OF_PPO]}
    if config.evaluation is not None:
        told["assumptions"].append("the evaluation after training is a job of its own, and not counted")
    if not isinstance(model, Model):
        return _without_model(told, model.why)
    tokens = desk.settings.max_batch_tokens
    step = ppo_step_flops(model.shape, config, load)
    told["assumptions"].append(f"the policy runs with RLHF_MAX_BATCH_TOKENS={tokens}, as in the job API's environment")
    return Estimate(
        **told,
        model=_facts(desk, model),
        model_unknown=None,
        learner=_memory(learner_memory(model.shape, config, load, size)),
        policy=_memory(policy_memory(model.shape, config.trained, tokens, size)),
        flops={name: config.steps * value for name, value in step.items()},
        time=estimate_time(desk, config, model),
    )


def _estimate_reward_model(desk: Desk, config: RewardModelJobConfig) -> Estimate:
    model, size = find_model(desk.settings), DTYPE_BYTES[desk.settings.dtype]
    load = reward_model.reading_load(config, packs=not isinstance(model, Model) or model.shape.packs)
    pairs = len(config.pairs)
    work = WorkEstimate(
        steps=config.epochs,
        samples_per_step=pairs,
        prompt_tokens_per_step=load.prompt_tokens,
        response_tokens_per_step=load.response_tokens,
        samples=pairs,
        tokens=load.tokens,
        redis_bytes_per_step=0,
        redis_bytes=0,
    )
    told: dict[str, Any] = {
        "kind": "reward_model",
        "work": work,
        "assumptions": [*ALWAYS, "early stopping does not happen"],
    }
    if not isinstance(model, Model):
        return _without_model(told, model.why)
    return Estimate(
        **told,
        model=_facts(desk, model),
        model_unknown=None,
        learner=_memory(reward_model.learner_memory(model.shape, config, load, size)),
        policy=None,
        flops=reward_model.job_flops(model.shape, config, load),
        time=estimate_time(desk, config, model),
    )


def _estimate_evaluation(config: EvaluationJobConfig) -> Estimate:
    work = WorkEstimate(
        steps=total_units(config),
        samples_per_step=0,
        prompt_tokens_per_step=0,
        response_tokens_per_step=0,
        samples=0,
        tokens=0,
        redis_bytes_per_step=0,
        redis_bytes=0,
    )
    told = {"kind": "evaluation", "work": work, "assumptions": ["only the steps of an evaluation are known beforehand"]}
    return _without_model(told, "an evaluation loads no model; it asks policy and reward")


def _without_model(told: dict[str, Any], why: str) -> Estimate:
    time = TimeEstimate(hours=None, seconds_per_step=None, basis="the model's shape is unknown")
    return Estimate(**told, model=None, model_unknown=why, learner=None, policy=None, flops=None, time=time)


def _ppo_work(config: PpoJobConfig, load: StepLoad) -> WorkEstimate:
    return WorkEstimate(
        steps=config.steps,
        samples_per_step=load.samples,
        prompt_tokens_per_step=load.prompt_tokens,
        response_tokens_per_step=load.response_tokens,
        samples=config.steps * load.samples,
        tokens=config.steps * (load.prompt_tokens + load.response_tokens),
        redis_bytes_per_step=load.redis_bytes,
        redis_bytes=load.redis_bytes * min(config.steps, load.steps_in_redis),
    )


def _memory(parts: dict[str, int]) -> MemoryEstimate:
    return MemoryEstimate(parts=parts, peak_bytes=sum(parts.values()))


def _facts(desk: Desk, model: Model) -> ModelFacts:
    shape = model.shape
    return ModelFacts(
        name=model.name,
        family=shape.family,
        layers=shape.layers,
        width=shape.width,
        parameters=shape.parameters,
        dtype=desk.settings.dtype,
    )
