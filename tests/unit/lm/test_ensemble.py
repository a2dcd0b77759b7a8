"""The ensemble against the model's own forward pass, and what a score may and may not depend on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf.contracts.base import Message
from rlhf.contracts.errors import ScoringFailed
from rlhf.lm.chat import encode_prompt, encode_text
from rlhf.lm.ensemble import EnsembleShape, RewardEnsemble
from rlhf.lm.exchanges import Exchange, batch_rows, encode_exchange, make_rows, pack_rows
from rlhf.lm.loading import LanguageModel, load_language_model
from rlhf.lm.readings import collate_readings
from tests.tiny_models import save_tiny_gpt_neo, save_tiny_llama

TEXTS = [
    ("What is rain?", "Water that falls from clouds."),
    ("What is rain?", "Rain."),
    ("What is rain?", "I do not know, but I can tell you of snow, hail, fog, mist and all the other kinds."),
    ("Name a colour.", "Blue!"),
    ("Name a colour.", "red red red red"),
]


@pytest.fixture(scope="module", params=["llama", "gpt_neo"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    save = {"llama": save_tiny_llama, "gpt_neo": save_tiny_gpt_neo}[request.param]
    return load_language_model(str(save(tmp_path_factory.mktemp(request.param))))


def shape_for(base: LanguageModel, **changes: int) -> EnsembleShape:
    values = {"trunk_layers": 3, "member_layers": 1, "members": 3, "lora_r": 2, "max_length": 256} | changes
    return EnsembleShape(backbone=base.name, width=32, **values)


def stirred(base: LanguageModel, **changes: int) -> RewardEnsemble:
    """An ensemble whose adapters and heads do something."""
    ensemble = RewardEnsemble(base, shape_for(base, **changes), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in ensemble.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return ensemble


def encode(base: LanguageModel, texts: list[tuple[str, str]] = TEXTS) -> list[Exchange]:
    return [encode_exchange(base.tokenizer, prompt, response, max_length=256) for prompt, response in texts]


@pytest.mark.parametrize(("trunk_layers", "member_layers"), [(3, 0), (3, 1), (4, 2), (2, 2)])
def test_fresh_members_see_the_models_own_hidden_state(
    base: LanguageModel, trunk_layers: int, member_layers: int
) -> None:
    ensemble = RewardEnsemble(base, shape_for(base, trunk_layers=trunk_layers, member_layers=member_layers, members=2))
    with torch.no_grad():
        ensemble.heads.copy_(torch.eye(64)[[0, 33]])  # the closing token's first feature, the mean's second
    raw = ensemble.raw_scores_of(ensemble.read(encode(base), token_budget=64))
    for index, (prompt, response) in enumerate(TEXTS):
        ids = [*encode_prompt(base.tokenizer, prompt), *encode_text(base.tokenizer, response), 257]
        response = len(ids) - len(encode_prompt(base.tokenizer, prompt))
        with torch.no_grad():
            states = base.model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
        closing = _output_of(base, ids, trunk_layers)[-1, 0]
        mean = states[trunk_layers - member_layers][0, -response:, 1].mean()
        torch.testing.assert_close(raw[:, index], torch.stack([closing, mean]), atol=1e-4, rtol=1e-4)


def _output_of(base: LanguageModel, ids: list[int], layers: int) -> torch.Tensor:
    """[L, d] what the model's own layer makes; the last of its `hidden_states` is normed, so a hook is needed."""
    captured = {}
    modules = base.model.model.layers if hasattr(base.model, "model") else base.model.transformer.h
    hook = modules[layers - 1].register_forward_hook(
        lambda module, inputs, output: captured.update(out=output[0] if isinstance(output, tuple) else output)
    )
    with torch.no_grad():
        base.model(input_ids=torch.tensor([ids]))
    hook.remove()
    return captured["out"][0]


def test_fresh_adapters_change_nothing_and_trained_ones_make_members_differ(base: LanguageModel) -> None:
    fresh = RewardEnsemble(base, shape_for(base))
    with torch.no_grad():
        fresh.heads.copy_(fresh.heads[:1].expand_as(fresh.heads))
    scores = fresh.score(encode(base), token_budget=512)
    torch.testing.assert_close(scores[:, :1].expand_as(scores), scores)
    assert float(stirred(base).score(encode(base), token_budget=512).std(dim=1).min()) > 1e-3


def test_a_member_is_itself_whoever_stands_beside_it(base: LanguageModel) -> None:
    three = stirred(base)
    one = RewardEnsemble(base, shape_for(base, members=1))
    with torch.no_grad():
        for name, parameter in one.named_parameters():
            parameter.copy_(three.get_parameter(name)[1:2])
    expected = three.score(encode(base), token_budget=512)[:, 1]
    torch.testing.assert_close(one.score(encode(base), token_budget=512)[:, 0], expected, atol=1e-4, rtol=1e-4)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(len(TEXTS))), count=st.integers(1, len(TEXTS)), budget=st.sampled_from([1, 80, 999]))
def test_a_score_does_not_depend_on_its_neighbours(
    base: LanguageModel, order: list[int], count: int, budget: int
) -> None:
    ensemble = stirred(base)
    alone = torch.cat([ensemble.score([exchange], token_budget=999) for exchange in encode(base)])
    chosen = order[:count]
    together = ensemble.score([encode(base)[i] for i in chosen], token_budget=budget)
    torch.testing.assert_close(together, alone[chosen], atol=2e-4, rtol=2e-4)


def test_gradients_reach_every_members_parameters_and_no_other(base: LanguageModel) -> None:
    ensemble = stirred(base, member_layers=2)
    readings = ensemble.read(encode(base), token_budget=512)
    batch = collate_readings(readings, torch.arange(5).repeat(3))
    ensemble.raw_scores(batch)[1].sum().backward()
    for name, parameter in ensemble.named_parameters():
        gradient = parameter.grad
        assert gradient is not None, name
        assert float(gradient[1].abs().sum()) > 0, name
        assert float(gradient[0].abs().sum()) == 0, name
        assert float(gradient[2].abs().sum()) == 0, name
    assert all(parameter.grad is None for parameter in base.model.parameters())
    assert {name.split(".")[0] for name in ensemble.state_dict()} == {
        "adapters",
        "heads",
        "bias",
        "feature_mean",
        "feature_std",
        "usual",
        "usual_rest",
        "reference_mean",
        "reference_std",
    }


def test_keys_kept_in_half_precision_change_a_score_little(base: LanguageModel) -> None:
    ensemble = stirred(base)
    full = ensemble.raw_scores_of(ensemble.read(encode(base), token_budget=512))
    half = ensemble.raw_scores_of(ensemble.read(encode(base), token_budget=512, store_dtype=torch.float16))
    torch.testing.assert_close(half, full, atol=2e-2, rtol=2e-2)


def test_scores_are_standardised_by_the_reference(base: LanguageModel) -> None:
    ensemble = stirred(base)
    raw = ensemble.raw_scores_of(ensemble.read(encode(base), token_budget=512))
    ensemble.reference_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    ensemble.reference_std.copy_(torch.tensor([2.0, 4.0, 0.5]))
    scores = ensemble.score(encode(base), token_budget=512)
    # (raw - mean) / std for each member.
    torch.testing.assert_close(scores[:, 0], (raw[0] - 1.0) / 2.0)
    torch.testing.assert_close(scores[:, 1], (raw[1] - 2.0) / 4.0)
    torch.testing.assert_close(scores[:, 2], (raw[2] - 3.0) / 0.5)


def test_novelty_is_what_lies_outside_the_usual_directions(base: LanguageModel) -> None:
    ensemble = stirred(base, member_layers=1)
    readings = ensemble.read(encode(base), token_budget=512)
    every = torch.arange(len(TEXTS))
    ensemble.fit_features(readings, every)
    torch.testing.assert_close(ensemble.usual @ ensemble.usual.T, torch.eye(16), atol=1e-4, rtol=1e-4)
    # Five responses less their mean span at most four of sixteen directions: nothing of them is new.
    assert float(ensemble.novelty_of(readings).max() * ensemble.usual_rest) < 1e-3
    strange = encode(base, [("What is rain?", "zq zq zq zq zq zq")])
    assert float(ensemble.novelty_of(ensemble.read(strange, token_budget=512))) > 100
    assert float(ensemble.assess(strange, token_budget=512).novelty) > 100


def test_novelty_does_not_depend_on_what_members_learned(base: LanguageModel) -> None:
    ensemble, fresh = stirred(base), RewardEnsemble(base, shape_for(base))
    readings = ensemble.read(encode(base), token_budget=512)
    for each in (ensemble, fresh):
        each.fit_features(readings, torch.arange(2))
    assert torch.equal(ensemble.novelty_of(readings), fresh.novelty_of(readings))


def test_autocast_moves_scores_a_little_and_gradients_flow(base: LanguageModel) -> None:
    ensemble = stirred(base)
    exact = ensemble.raw_scores_of(ensemble.read(encode(base), token_budget=512))
    ensemble.autocast = torch.bfloat16
    readings = ensemble.read(encode(base), token_budget=512)
    batch = collate_readings(readings, torch.arange(len(TEXTS))).repeat(3)
    scores = ensemble.raw_scores(batch)
    assert scores.dtype == torch.float32
    # 8 bits of mantissa, here in features whose spread is small beside their mean
    assert float((scores.detach() - exact).abs().mean()) < 0.1 * float(exact.std())
    torch.autograd.backward(scores.sum())
    assert all(
        parameter.grad is not None and parameter.grad.dtype == torch.float32 for parameter in ensemble.parameters()
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"trunk_layers": 5}, "trunk_layers=5 exceeds the 4 layers"),
        ({"member_layers": 4}, "member_layers=4 exceeds trunk_layers=3"),
        ({"max_length": 1024}, "max_length=1024 exceeds the 512 positions"),
    ],
)
def test_a_shape_that_does_not_fit_says_why(base: LanguageModel, changes: dict[str, int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        RewardEnsemble(base, shape_for(base, **changes))
    with pytest.raises(ValueError, match="made for width 64"):
        RewardEnsemble(base, shape_for(base).model_copy(update={"width": 64}))


def test_the_prompt_gives_way_and_the_response_never_does(base: LanguageModel) -> None:
    prompt = [Message(role="user", content="long " * 30)]
    whole = encode_prompt(base.tokenizer, prompt)
    # 20 tokens hold the 5 of the response (one a byte), its EOS, and the last 14 of the prompt.
    exchange = encode_exchange(base.tokenizer, prompt, "Fine.", max_length=20)
    assert exchange.truncated
    assert exchange.prompt_ids == tuple(whole[-14:])
    assert exchange.response_ids == (*encode_text(base.tokenizer, "Fine."), 257)
    # 30 bytes and EOS leave no room for one token of the prompt in 31.
    assert len(encode_exchange(base.tokenizer, prompt, "x" * 30, max_length=32).prompt_ids) == 1
    with pytest.raises(ScoringFailed, match=r"has 30 tokens; .* reads 31 in all.*to 29 tokens"):
        encode_exchange(base.tokenizer, prompt, "x" * 30, max_length=31)


def test_an_empty_response_is_refused(base: LanguageModel) -> None:
    with pytest.raises(ScoringFailed, match="response is empty"):
        encode_exchange(base.tokenizer, "Hi", "", max_length=64)


@pytest.mark.parametrize(("prompt", "response"), [("Hi\ud800", "Yes."), ("Hi", "Yes\udc00.")])
def test_half_a_surrogate_pair_is_refused(base: LanguageModel, prompt: str, response: str) -> None:
    with pytest.raises(ScoringFailed, match="has the lone surrogate"):
        encode_exchange(base.tokenizer, prompt, response, max_length=64)


def test_rows_share_prompts_and_keep_within_their_length() -> None:
    one, two = (1, 2, 3), (4, 5)
    exchanges = [
        Exchange(one, (7, 9), truncated=False),
        Exchange(two, (8, 9), truncated=False),
        Exchange(one, (6, 6, 9), truncated=False),
        Exchange(one, (5, 5, 5, 9), truncated=False),
    ]
    rows = make_rows(exchanges, share_prompts=True, row_tokens=9)
    # 3 + 2 + 3 = 8 tokens; the third response would make 12, so it starts a row of its own.
    assert [(row.prompt_ids, [index for index, _ in row.responses], row.length) for row in rows] == [
        (one, [0, 2], 8),
        (two, [1], 4),
        (one, [3], 7),
    ]
    # Longest first, 16 padded tokens: 8 and 7 take 2 x 8 = 16; 4 goes alone.
    assert [[row.length for row in batch] for batch in batch_rows(rows, token_budget=16)] == [[8, 7], [4]]
    packed = pack_rows(rows[:2])
    assert packed.input_ids.tolist() == [[1, 2, 3, 7, 9, 6, 6, 9], [4, 5, 8, 9, 0, 0, 0, 0]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5], [0, 1, 2, 3, 0, 0, 0, 0]]
    assert packed.mask is not None
    # The second response (from 5) sees the prompt (0-2) and itself, not the first response (3, 4).
    assert (packed.mask[0, 0, 6] == 0).nonzero()[:, 0].tolist() == [0, 1, 2, 5, 6]
    assert pack_rows(rows[1:]).mask is None
