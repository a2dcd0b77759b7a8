"""A tiny base model, random experience, and a job in memory whose rollouts sample the model that learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import GPTNeoConfig, GPTNeoForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.jobs import BestVersion, PpoJobConfig
from rlhf.contracts.rollout import RolloutTask
from rlhf.lm.loading import LanguageModel
from services.trainer.experience.batch import ExperienceBatch

VOCABULARY = 24
EOS = VOCABULARY - 1


def tiny_llama(seed: int = 0, **overrides: Any) -> LanguageModel:
    """Three layers with grouped-query attention, a vocabulary of 24, EOS = 23."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    config = LlamaConfig(**{**sizes, **heads, "initializer_range": 0.2, "tie_word_embeddings": True, **overrides})
    return _frozen(LlamaForCausalLM(config))


def tiny_gpt_neo(seed: int = 0) -> LanguageModel:
    """Global and local attention with a window shorter than the sequences; its config asks for dropout."""
    torch.manual_seed(seed)
    config = GPTNeoConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_layers=3,
        num_heads=4,
        attention_types=[[["global", "local", "local"], 1]],
        window_size=4,
        max_position_embeddings=128,
        resid_dropout=0.1,
        embed_dropout=0.1,
        attention_dropout=0.1,
        initializer_range=0.2,
        bos_token_id=EOS,
        eos_token_id=EOS,
    )
    return _frozen(GPTNeoForCausalLM(config))


def _frozen(model: Any) -> LanguageModel:
    model.eval().requires_grad_(False)
    words = Tokenizer(WordLevel({str(i): i for i in range(VOCABULARY)}, unk_token="0"))
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token=str(EOS))
    return LanguageModel("tiny", model=model, tokenizer=tokenizer, eos_ids=(EOS,), max_positions=128)


def make_batch(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[Sequence[int]]],
    *,
    rewards: Sequence[float] | None = None,
    behavior: Sequence[Sequence[float]] | None = None,
    task: RolloutTask | None = None,
    failures: Sequence[str] = (),
) -> ExperienceBatch:
    """A batch of `responses[i]`, all samples of `prompts[i]`; a response that ends in EOS has ended."""
    flat = [r for samples in responses for r in samples]
    owner = [i for i, samples in enumerate(responses) for _ in samples]
    given = np.zeros(len(flat)) if rewards is None else np.array(rewards)
    logprobs = behavior or [[-1.0] * len(r) for r in flat]
    return ExperienceBatch(
        batch_id=task.batch_id if task else "job:0:0",
        job=task.job if task else "job",
        step=task.step if task else 0,
        shard=task.shard if task else 0,
        policy_version=task.policy_version if task else 0,
        group=np.array(owner, dtype=np.int32),
        prompt_ids=[np.array(prompts[i], dtype=np.int32) for i in owner],
        response_ids=[np.array(r, dtype=np.int32) for r in flat],
        behavior_logprobs=[np.array(row, dtype=np.float32) for row in logprobs],
        ended=np.array([r[-1] == EOS for r in flat], dtype=np.bool_),
        rewards=given.astype(np.float32),
        scores=given.astype(np.float32),
        uncertainty=np.full(len(flat), 0.1, dtype=np.float32),
        members=np.stack([given - 0.1, given + 0.1], axis=1).astype(np.float32),
        responses=[" ".join(map(str, r)) for r in flat],
        prompts=[" ".join(map(str, prompts[i])) for i in owner],
        failures=list(failures),
        timings={"generate_s": 0.0, "score_s": 0.0},
    )


def random_batch(
    seed: int, prompts: int = 3, samples: int = 4, longest: int = 9, ids_in_use: int = VOCABULARY
) -> ExperienceBatch:
    """Random lengths, rewards and behaviour log-probabilities; ids are among the last `ids_in_use`."""
    rng = np.random.default_rng(seed)

    def ids(most: int) -> list[int]:
        return [int(i) for i in rng.integers(VOCABULARY - ids_in_use, VOCABULARY, rng.integers(1, most + 1))]

    asked = [ids(6) for _ in range(prompts)]
    responses = [[ids(longest) for _ in range(samples)] for _ in range(prompts)]
    behavior = [[float(x) for x in -rng.exponential(3.0, len(r))] for group in responses for r in group]
    rewards = [float(x) for x in rng.normal(size=prompts * samples)]
    return make_batch(asked, responses, rewards=rewards, behavior=behavior)


Reward = Callable[[list[int]], float]


def sampler(base: LanguageModel, reward: Reward) -> Callable[[RolloutTask], ExperienceBatch]:
    """Samples the model as it is now, through its own forward pass; prompts are equally many ids written as text."""

    @torch.no_grad()
    def sample(task: RolloutTask) -> ExperienceBatch:
        generator = torch.Generator().manual_seed(task.sampling.seed or 0)
        prompts, n = [[int(i) for i in str(prompt).split()] for prompt in task.prompts], task.sampling.n
        ids, drawn = torch.tensor(prompts).repeat_interleave(n, 0), []
        start = ids.shape[1]
        for _ in range(task.sampling.max_new_tokens):
            logprobs = (base.model(input_ids=ids).logits[:, -1].float() / task.sampling.temperature).log_softmax(-1)
            token = torch.multinomial(logprobs.exp(), 1, generator=generator)
            drawn.append(logprobs.gather(-1, token))
            ids = torch.cat([ids, token], -1)
        rows = [row[: row.index(EOS) + 1] if EOS in row else row for row in ids[:, start:].tolist()]
        behavior = [all_[: len(row)] for row, all_ in zip(rows, torch.cat(drawn, -1).tolist(), strict=True)]
        responses = [rows[i : i + n] for i in range(0, len(rows), n)]
        return make_batch(prompts, responses, rewards=[reward(row) for row in rows], behavior=behavior, task=task)

    return sample


class MemoryJob:
    """What the learner sees of a job, in memory. A batch is made once, as in the stream, however often it is pulled."""

    def __init__(
        self, root: Path, config: PpoJobConfig, sample: Callable[[RolloutTask], ExperienceBatch], job: str = "job"
    ) -> None:
        self.id, self.config, self.store = job, config, ArtifactStore(root)
        self.folder = self.store.job_folder(job)
        self.sample, self.tasks, self.batches = sample, {}, {}
        self.acknowledged, self.rows, self.events, self.checks = [], {}, [], 0
        self.best: BestVersion | None = None

    def enqueue(self, tasks: list[RolloutTask]) -> None:
        self.tasks |= {task.batch_id: task for task in tasks}

    def pull(self, step: int, shards: int) -> list[ExperienceBatch]:
        names = [f"{self.id}:{step}:{shard}" for shard in range(shards)]
        self.batches |= {name: self.sample(self.tasks[name]) for name in names if name not in self.batches}
        return [self.batches[name] for name in names]

    def acknowledge(self, batches: list[ExperienceBatch]) -> None:
        self.acknowledged += [batch.batch_id for batch in batches]

    def raise_if_stopped(self) -> None:
        self.checks += 1

    def raise_if_lost(self) -> None:
        pass

    def discard(self, batches: list[ExperienceBatch]) -> None:
        for batch in batches:
            self.batches.pop(batch.batch_id, None)

    def progress(self, step: int, total: int, metrics: dict[str, float], best: BestVersion | None = None) -> None:
        self.rows[step], self.best = metrics, best

    def event(self, name: str, message: str, **more: Any) -> None:
        self.events.append(name)


def job_config(**changes: Any) -> PpoJobConfig:
    """A small job: eight prompts of three ids, four samples of at most six tokens, a fixed weak KL penalty."""
    defaults: dict[str, Any] = {
        "prompts": [f"{i} {i + 3} {2 * i}" for i in range(8)],
        "steps": 4,
        "rollout": {"prompts_per_step": 8, "samples_per_prompt": 4, "max_new_tokens": 6, "missing_eos_penalty": 0.0},
        "update": {"learning_rate": 1e-2},
        "kl": {"schedule": "fixed", "beta": 0.01},
        "lora": {"r": 4, "alpha": 8.0, "top_layers": 2},
    }
    if changes.get("full") is not None:
        del defaults["lora"]
    merged = {k: {**v, **changes.pop(k, {})} if isinstance(v, dict) else changes.pop(k, v) for k, v in defaults.items()}
    return PpoJobConfig(kind="ppo", reward_model="rm@1", **merged, **changes)
