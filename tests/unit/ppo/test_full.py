"""Full fine-tuning: what is trained and what is left alone, in which type, and what it leaves for others."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf.contracts.jobs import FullConfig, LoraConfig, PpoJobConfig
from rlhf.lm.loading import LanguageModel
from services.trainer.ppo.actor import Actor
from services.trainer.ppo.collate import collate
from services.trainer.ppo.learner import PpoLearner, run_ppo
from tests.unit.ppo.reference import whole_model
from tests.unit.ppo.stand_in import MemoryJob, job_config, random_batch, sampler, tiny_gpt_neo, tiny_llama
from tests.unit.ppo.test_actor import fresh_actor, gradients, run, trained_actor

FAMILIES = pytest.mark.parametrize("make", [tiny_llama, tiny_gpt_neo])
IDS = torch.arange(12)[None]


def body(**settings: object) -> PpoJobConfig:
    return PpoJobConfig.model_validate({"kind": "ppo", "prompts": ["a"], "reward_model": "rm@1", **settings})


def test_a_job_trains_one_of_both() -> None:
    assert body().trained == LoraConfig()
    config = body(full={"top_layers": 4})
    assert (config.trained, config.lora) == (FullConfig(top_layers=4), None)
    assert body(full={}, lora=None).trained == FullConfig()
    with pytest.raises(ValidationError, match="set lora to null or leave out full"):
        body(full={}, lora={"r": 4})
    with pytest.raises(ValidationError, match=r"give full=\{\} to train the weights themselves"):
        body(lora=None)


def test_the_learning_rate_follows_what_is_trained_unless_it_is_named() -> None:
    assert body().update.learning_rate == 1e-4
    assert body(full={}).update.learning_rate == 1e-5
    assert body(full={}, update={"epochs": 3}).update == body(update={"epochs": 3, "learning_rate": 1e-5}).update
    assert body(full={}, update={"learning_rate": 1e-4}).update.learning_rate == 1e-4
    # As it is read back from the job's folder.
    config = body(full={}, update={"epochs": 3})
    assert PpoJobConfig.model_validate_json(config.model_dump_json()) == config


# A Llama layer has 7 projections and 2 norms: 9. One of GPT-Neo has 6 projections, 3 of them with a bias, and 2 norms
# with a bias: 6 + 3 + 4 = 13. The final norm has 1 or 2.
@pytest.mark.parametrize(
    ("make", "layers", "each", "last"), [(tiny_llama, "model.layers.", 9, 1), (tiny_gpt_neo, "transformer.h.", 13, 2)]
)
@pytest.mark.parametrize("top_layers", [1, None])
def test_layers_and_final_norm_are_trained_embeddings_and_head_are_not(
    make: Callable[[], LanguageModel], layers: str, each: int, last: int, top_layers: int | None
) -> None:
    actor = fresh_actor(make(), top_layers, full=True)
    named = {name: p for name, p in actor.trainable().items() if not name.startswith("value_head.")}
    inside = {name for name in named if name.startswith(f"weights.{layers}")}
    assert {name.removeprefix(f"weights.{layers}")[0] for name in inside} == ({"2"} if top_layers else {"0", "1", "2"})
    assert len(inside) == each * (top_layers or 3)
    assert len(named) - len(inside) == last
    assert {id(p) for p in actor.parameters() if p.requires_grad} == {id(p) for p in actor.trainable().values()}
    assert all(p.dtype == torch.float32 for p in named.values())


@FAMILIES
def test_the_base_model_is_not_written_to(make: Callable[[], LanguageModel], tmp_path: Path) -> None:
    base = make()
    # The tensors themselves, so that one that is written and put back would be seen too by its version.
    before = {name: (p, p.clone(), p._version) for name, p in base.model.named_parameters()}
    modules = [(name, type(module)) for name, module in base.model.named_modules()]
    logits = base.model(input_ids=IDS).logits
    job = MemoryJob(tmp_path, job_config(steps=2, full={}), sampler(base, lambda ids: float(ids[0] < 12)))
    learner = PpoLearner(job, base)
    learner.run()
    assert float((whole_model(learner.actor, IDS).logits - logits).detach().abs().max()) > 0.01
    learner.actor.detach()
    after = dict(base.model.named_parameters())
    assert after.keys() == before.keys()
    for name, (parameter, copied, version) in before.items():
        assert after[name] is parameter
        assert torch.equal(parameter, copied)
        assert parameter._version == version
        assert not parameter.requires_grad
    assert [(name, type(module)) for name, module in base.model.named_modules()] == modules
    assert torch.equal(base.model(input_ids=IDS).logits, logits)
    # The next job of the process begins where this one did, whatever it trains.
    assert torch.equal(whole_model(trained_actor(base), IDS, reference=True).logits, logits)


def test_too_many_layers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"full.top_layers=4 exceeds the 3 layers of tiny; lower it to 3 or less"):
        fresh_actor(tiny_llama(), 4, full=True)


@FAMILIES
def test_a_bfloat16_base_learns_in_float32(make: Callable[[], LanguageModel]) -> None:
    base = make()
    base.model.to(torch.bfloat16)
    actor, rollout = fresh_actor(base, full=True), collate([random_batch(3)], row_tokens=None)
    logprobs, values, _ = run(actor, rollout)
    # The same products in the same type: a run begins with almost no KL to the reference.
    assert float((logprobs - run(actor, rollout, reference=True)[0]).detach().abs().max()) < 0.1
    weights = {name: p for name, p in actor.trainable().items() if name.startswith("weights.")}
    before = {name: p.detach().clone() for name, p in weights.items()}
    assert all(p.dtype == torch.float32 for p in weights.values())
    assert all(bool(g.any()) for g in gradients(actor, logprobs, values).values())
    torch.optim.AdamW(weights.values(), lr=1e-5, weight_decay=0.0).step()
    assert all(not torch.equal(p, before[name]) for name, p in weights.items())
    # Norms are 1: in bfloat16 a step of 1e-5 would have been lost.
    norm = "weights.model.norm.weight" if make is tiny_llama else "weights.transformer.ln_f.weight"
    assert torch.equal(weights[norm].to(torch.bfloat16), before[norm].to(torch.bfloat16))


def test_float16_is_refused_with_a_way_out() -> None:
    base = tiny_llama()
    base.model.to(torch.float16)
    with pytest.raises(ValueError, match=r"tiny cannot compute in float16.*set RLHF_DTYPE to bfloat16 or float32"):
        Actor(base, FullConfig(), temperature=1.0, seed=0)


def test_a_version_holds_what_differs_from_the_base_model(tmp_path: Path) -> None:
    actor = trained_actor(tiny_llama(), 1, full=True)
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        actor.trained.save(folder, actor.trained.weights())
    tensors = load_file(tmp_path / "a" / "replaced.safetensors")
    assert {f"weights.{name}" for name in tensors} | {"value_head.weight", "value_head.bias"} == set(actor.trainable())
    names = ["replaced.json", "replaced.safetensors"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


@FAMILIES
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_model_that_a_job_leaves_is_an_ordinary_one(
    make: Callable[[], LanguageModel], dtype: torch.dtype, tmp_path: Path
) -> None:
    base = make()
    base.model.to(dtype)
    actor = trained_actor(base, full=True)
    actor.trained.save_model(tmp_path, {**actor.trained.weights(), **actor.trained.untouched()})
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto").eval()
    assert loaded.dtype == dtype
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
        expected = whole_model(actor, IDS).logits
    torch.testing.assert_close(loaded(input_ids=IDS).logits.float(), expected.float(), rtol=0.1, atol=0.3)
    if dtype == torch.float32:
        assert torch.equal(loaded(input_ids=IDS).logits, expected)
    assert AutoTokenizer.from_pretrained(tmp_path)("3 1 2")["input_ids"] == [3, 1, 2]


def test_an_untied_head_is_written_too(tmp_path: Path) -> None:
    actor = trained_actor(tiny_llama(tie_word_embeddings=False), full=True)
    actor.trained.save_model(tmp_path, {**actor.trained.weights(), **actor.trained.untouched()})
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(input_ids=IDS).logits, whole_model(actor, IDS).logits)


def test_the_base_model_is_given_back_when_a_run_fails(tmp_path: Path) -> None:
    base = tiny_llama()
    logits = base.model(input_ids=IDS).logits
    job = MemoryJob(tmp_path, job_config(full={}), sampler(base, lambda ids: float(ids[0] < 12)))

    def fail(*_: object) -> None:
        raise RuntimeError("the disk is full")

    job.acknowledge = fail
    with pytest.raises(RuntimeError, match="the disk is full"):
        run_ppo(job, base)
    assert torch.equal(base.model(input_ids=IDS).logits, logits)
