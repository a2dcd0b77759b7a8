"""The whole job on tiny models: it learns a rule, resumes exactly, and publishes what the reward service can load."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.errors import Conflict, InvalidInput
from rlhf.contracts.jobs import PpoJobConfig, PreferencePair, RewardModelJobConfig
from rlhf.evaluation.formats import show_number, show_share
from rlhf.evaluation.job_report.page import render_job_report
from rlhf.evaluation.job_report.records import read_records
from rlhf.evaluation.job_report.shelves import FolderShelf
from rlhf.lm.ensemble_bundle import load_bundle
from rlhf.lm.exchanges import encode_exchange
from rlhf.lm.loading import LanguageModel, load_language_model
from services.trainer.reward_model.bags import member_orders
from services.trainer.reward_model.fit import TrainingFailed, accumulate_gradients
from services.trainer.reward_model.train import RewardModelTraining, run_reward_model
from tests.html_page import Page
from tests.tiny_models import save_tiny_gpt_neo, save_tiny_llama


class Stopped(Exception):
    """Stands for a cancelled job or a lost lease."""


@dataclass
class FakeJob:
    config: Any
    store: ArtifactStore
    id: str = "rm-1"
    steps_before_stop: int = 10**9
    told: list[tuple[int, int, dict[str, float]]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.store.job_folder(self.id)

    def progress(self, step: int, total: int, metrics: dict[str, float]) -> None:
        self.told.append((step, total, metrics))

    def event(self, name: str, message: str, **_: Any) -> None:
        self.events.append(name)

    def raise_if_stopped(self) -> None:
        self.steps_before_stop -= 1
        if self.steps_before_stop < 0:
            raise Stopped


def make_pairs(count: int) -> list[PreferencePair]:
    """The rule: an answer that ends with a full stop is better than one that is cut off."""
    rng = random.Random(5)
    words = ["rain", "snow", "sun", "wind", "fog", "hail", "dew"]
    pairs = []
    for number in range(count):
        first, second = (" ".join(rng.choices(words, k=rng.randint(2, 4))) for _ in range(2))
        split = "heldout" if number % 4 == 0 else None
        prompt = f"Say {number if split else number // 2 + 1000}."
        pairs.append(PreferencePair(prompt=prompt, chosen=first + ".", rejected=second, split=split))
    return pairs


def make_config(**changes: Any) -> RewardModelJobConfig:
    return RewardModelJobConfig.model_validate(
        {
            "kind": "reward_model",
            "pairs": make_pairs(120),
            "members": 3,
            "trunk_layers": 2,
            "member_layers": 2,
            "lora_r": 2,
            "learning_rate": 0.03,
            "epochs": 5,
            "batch_size": 16,
            "max_length": 128,
            "seed": 3,
        }
        | changes
    )


@pytest.fixture(scope="module", params=["llama", "gpt_neo"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    save: Callable[[Path], Path] = {"llama": save_tiny_llama, "gpt_neo": save_tiny_gpt_neo}[request.param]
    return load_language_model(str(save(tmp_path_factory.mktemp(request.param))))


@pytest.fixture(scope="module")
def done(base: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> FakeJob:
    job = FakeJob(make_config(), ArtifactStore(tmp_path_factory.mktemp("store")))
    run_reward_model(job, base)
    return job


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_it_learns_the_rule_on_a_half_precision_trunk(dtype: str, tmp_path: Path) -> None:
    base = load_language_model(str(save_tiny_llama(tmp_path / "tiny")), dtype=dtype)
    job = FakeJob(make_config(), ArtifactStore(tmp_path / "store"))
    run_reward_model(job, base)
    assert json.loads((job.folder / "metrics.json").read_text())["accuracy_ensemble"] > 0.9
    ensemble = load_bundle(job.store.resolve("reward_models", "rm-1@1"), base)
    assert {parameter.dtype for parameter in ensemble.parameters()} == {torch.float32}


def test_it_learns_the_rule_and_says_so(base: LanguageModel, done: FakeJob) -> None:
    figures = json.loads((done.folder / "metrics.json").read_text())
    # A random GPT-Neo attends to nearly everything alike, so what it learns of 90 pairs does not carry over.
    assert figures["accuracy_ensemble"] > (0.9 if base.model.config.model_type == "llama" else 0.5)
    assert figures["eval_pairs"] == 30
    assert figures["train_pairs"] + figures["validation_pairs"] == 90
    assert figures["members"] == len(figures["accuracy_members"]) == 3
    low, high = figures["accuracy_ensemble_ci95"]
    assert low <= figures["accuracy_ensemble"] <= high
    assert figures["dropped"] == {
        "empty": 0,
        "equal": 0,
        "low_quality": 0,
        "contradictory": 0,
        "duplicate": 0,
        "leaked": 0,
        "too_long": 0,
    }
    assert {"accuracy_length_baseline", "ece", "ece_before_temperature", "auroc_uncertainty", "durations"} <= set(
        figures
    )
    assert figures["history"][-1]["loss"] < figures["history"][0]["loss"]


def test_it_says_what_data_it_learned_from(done: FakeJob) -> None:
    told = json.loads((done.folder / "data.json").read_text())
    # 30 of the 120 pairs are held out, each with a prompt of its own; of the other 90, two share a prompt.
    assert (told["submitted"], told["max_length"], sum(told["dropped"].values())) == (120, 128, 0)
    roles = told["roles"]
    assert told["spoilt"] == 0
    assert (roles["evaluation"]["pairs"], roles["evaluation"]["prompts"]) == (30, 30)
    assert roles["train"]["pairs"] + roles["validation"]["pairs"] == 90


def test_its_report_says_what_its_files_say(done: FakeJob) -> None:
    figures = json.loads((done.folder / "metrics.json").read_text())
    (done.folder / "config.json").write_text(done.config.model_dump_json())
    page = Page(render_job_report(read_records(FolderShelf(done.folder), done.id)))
    assert page.row("Ensemble")[0] == show_share(figures["accuracy_ensemble"])
    assert page.row("Member 3")[0] == show_share(figures["accuracy_members"][2])
    assert page.row("Length alone")[0] == show_share(figures["accuracy_length_baseline"])
    assert page.row("expected calibration error") == [show_number(figures["ece"])]
    assert page.row("least certain quarter")[0] == show_share(figures["accuracy_by_uncertainty_quartile"][-1])
    assert page.row("pairs submitted") == ["120"]
    card = (done.store.resolve("reward_models", "rm-1@1") / "README.md").read_text()
    assert " ".join(card.split()) in " ".join(page.text.split())


def test_the_bundle_has_a_model_card(base: LanguageModel, done: FakeJob) -> None:
    card = (done.store.resolve("reward_models", "rm-1@1") / "README.md").read_text()
    figures = json.loads((done.folder / "metrics.json").read_text())
    assert f"accuracy of the ensemble | {figures['accuracy_ensemble']:.1%}" in card
    assert f"base_model: {base.name}" in card
    assert "120 pairs were submitted; dropped: none." in card
    assert "None" not in card
    assert "nan" not in card


def test_spoilt_responses_are_learned_from_and_counted(base: LanguageModel, tmp_path: Path) -> None:
    pairs = [pair.model_copy(update={"chosen": "one two three four five six seven."}) for pair in make_pairs(40)]
    job = FakeJob(make_config(pairs=pairs, epochs=1, spoilt_fraction=0.5), ArtifactStore(tmp_path))
    run_reward_model(job, base)
    told = json.loads((job.folder / "data.json").read_text())
    # 27 of the 30 pairs that are not held out train, the others validate; half of 27, rounded, are added.
    assert (told["spoilt"], told["roles"]["train"]["pairs"]) == (14, 41)
    assert told["roles"]["evaluation"]["pairs"] == 10


def test_degenerate_text_is_told_from_what_was_learned_from(base: LanguageModel, tmp_path: Path) -> None:
    rng, words = random.Random(1), ["rain", "fell", "on", "a", "small", "town", "by", "the", "sea", "all", "night"]
    chosen = [" ".join(rng.choices(words, k=rng.randint(8, 14))) + "." for _ in range(80)]
    pairs = [pair.model_copy(update={"chosen": text}) for pair, text in zip(make_pairs(80), chosen, strict=True)]
    job = FakeJob(make_config(pairs=pairs, epochs=1, max_length=400), ArtifactStore(tmp_path))
    run_reward_model(job, base)
    told = json.loads((job.folder / "metrics.json").read_text())
    # 20 held-out prompts with a preferred response each, spoilt in four ways
    assert told["degenerate"]["texts"] == {"cut": 20, "loop": 20, "shuffle": 20, "foreign": 20}
    assert set(told["degenerate"]["auroc_low_score"]) == {"all", "cut", "loop", "shuffle", "foreign"}
    if base.model.config.model_type == "llama":
        # Letters that no training response has: even a random model sees them.
        assert told["degenerate"]["auroc_novelty"]["foreign"] > 0.8
    assert told["scores"]["chosen"]["p05"] <= told["scores"]["chosen"]["p95"]


def test_small_microbatches_give_the_gradients_of_the_whole_batch(base: LanguageModel, tmp_path: Path) -> None:
    gradients = []
    for size in (None, 3):
        config = make_config(pairs_per_microbatch=size)
        training = RewardModelTraining(FakeJob(config, ArtifactStore(tmp_path / str(size))), base)
        training.read()
        # Batches of 8 of each member: parts of 3, 3 and 2
        order = member_orders(training.pairs["train"].prompt, members=3, seed=3, epoch=0)[:, :8]
        training.optimizer.zero_grad()
        train = training.pairs["train"]
        loss = accumulate_gradients(training.ensemble, training.readings, train, order, config, head_penalty=0.1)
        gradients.append([loss, *(parameter.grad for parameter in training.ensemble.parameters())])
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)


def test_progress_rises_to_the_end(done: FakeJob) -> None:
    steps = [step for step, _, _ in done.told]
    assert steps == sorted(set(steps))
    assert done.told[-1][0] == done.told[-1][1]
    assert "published" in done.events


def test_the_bundle_scores_as_the_training_did(base: LanguageModel, done: FakeJob) -> None:
    ensemble = load_bundle(done.store.resolve("reward_models", "rm-1@1"), base)
    good, bad = (
        encode_exchange(base.tokenizer, "Say 999.", text, max_length=128) for text in ("sun wind.", "sun wind")
    )
    scores = ensemble.score([good, bad], token_budget=512)
    assert scores.shape == (2, 3)
    if base.model.config.model_type == "llama":
        assert bool((scores[0] > scores[1]).all())


@pytest.mark.parametrize("stop", [1, 8, 14, 20])
def test_a_stopped_job_resumes_to_the_same_weights(
    base: LanguageModel, done: FakeJob, tmp_path: Path, stop: int
) -> None:
    job = FakeJob(make_config(), ArtifactStore(tmp_path), steps_before_stop=stop)
    with pytest.raises(Stopped):
        run_reward_model(job, base)
    job.steps_before_stop = 10**9
    run_reward_model(job, base)
    ours, theirs = (load_file(j.store.resolve("reward_models", "rm-1@1") / "ensemble.safetensors") for j in (job, done))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    again, before = (json.loads((j.folder / "metrics.json").read_text()) for j in (job, done))
    del again["durations"], before["durations"]
    assert again == before


@dataclass
class DiesAsItTellsAnEpoch(FakeJob):
    """Gone between an epoch's checkpoint and its row, once."""

    alive: bool = True

    def progress(self, step: int, total: int, metrics: dict[str, float]) -> None:
        if self.alive and metrics.get("epoch") == 1:
            self.alive = False
            raise Stopped
        super().progress(step, total, metrics)


def test_an_epoch_that_was_kept_but_not_told_is_told_after_the_crash(
    base: LanguageModel, done: FakeJob, tmp_path: Path
) -> None:
    job = DiesAsItTellsAnEpoch(make_config(), ArtifactStore(tmp_path))
    with pytest.raises(Stopped):
        run_reward_model(job, base)
    run_reward_model(job, base)
    assert job.events.count("resumed") == 1
    assert [step for step, _, _ in job.told] == [step for step, _, _ in done.told]


def test_a_job_that_died_after_publishing_publishes_no_second_model(base: LanguageModel, tmp_path: Path) -> None:
    job = FakeJob(make_config(epochs=1), ArtifactStore(tmp_path))
    run_reward_model(job, base)
    (job.folder / "metrics.json").unlink()
    run_reward_model(job, base)
    assert job.store.versions("reward_models", "rm-1") == [1]
    assert (job.folder / "metrics.json").exists()


def test_training_leaves_the_backbone_as_it_was(base: LanguageModel, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    names = [name for name, _ in base.model.named_modules()]
    run_reward_model(FakeJob(make_config(epochs=1), ArtifactStore(tmp_path)), base)
    assert [name for name, _ in base.model.named_modules()] == names
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.model.state_dict().items())


def test_early_stopping_keeps_the_best_epoch(base: LanguageModel, tmp_path: Path) -> None:
    # A rate so high that the first epoch is as good as it gets or later ones are noise.
    job = FakeJob(make_config(learning_rate=1.0, patience=1), ArtifactStore(tmp_path))
    run_reward_model(job, base)
    figures = json.loads((job.folder / "metrics.json").read_text())
    losses = [row["validation_loss"] for row in figures["history"]]
    assert figures["best_epoch"] == losses.index(min(losses))
    assert figures["epochs"] == len(losses) - 1 <= 5
    assert job.told[-1][0] == job.told[-1][1]


def test_a_loss_that_is_not_finite_stops_the_job(base: LanguageModel, tmp_path: Path) -> None:
    pairs = make_pairs(40)
    pairs = [pair.model_copy(update={"margin": 1e300}) for pair in pairs]
    job = FakeJob(make_config(pairs=pairs, margin_scale=1.0), ArtifactStore(tmp_path))
    with pytest.raises(TrainingFailed, match=r"heads is not finite; .* margin_scale=1 .*largest: inf"):
        run_reward_model(job, base)
    assert job.store.versions("reward_models", "rm-1") == []


def test_a_learning_rate_that_breaks_a_member_stops_the_job(base: LanguageModel, tmp_path: Path) -> None:
    job = FakeJob(make_config(learning_rate=1.0, weight_decay=1e38), ArtifactStore(tmp_path))
    with pytest.raises(TrainingFailed, match=r"member 0 is not finite in epoch 1, batch \d+; lower learning_rate=1"):
        run_reward_model(job, base)


def test_another_kind_of_job_is_refused(base: LanguageModel, tmp_path: Path) -> None:
    config = PpoJobConfig.model_validate({"kind": "ppo", "prompts": ["a"], "reward_model": "rm@1"})
    with pytest.raises(InvalidInput, match="of kind ppo"):
        run_reward_model(FakeJob(config, ArtifactStore(tmp_path)), base)


def test_another_backbone_is_told_from_the_right_one(base: LanguageModel, done: FakeJob, tmp_path: Path) -> None:
    save = save_tiny_llama if base.model.config.model_type == "llama" else save_tiny_gpt_neo
    stranger = load_language_model(str(save(tmp_path / "other", seed=9)))
    with pytest.raises(Conflict, match="scores its probe differently on other"):
        load_bundle(done.store.resolve("reward_models", "rm-1@1"), stranger)
