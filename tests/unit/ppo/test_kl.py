import json

import pytest
import torch

from rlhf.contracts.jobs import KlConfig
from services.trainer.ppo.kl import KlController, estimate_kl


def controller(schedule: str = "adaptive", total_steps: int = 4) -> KlController:
    return KlController(KlConfig(schedule=schedule, beta=0.1, target=6.0, horizon=1000), total_steps)


def test_estimates_by_hand() -> None:
    # log π - log π_ref: 0.2, -0.1 | 0.3, (outside the mask)
    # per sequence: (0.1 + 0.3)/2 = 0.2;  per token: 0.4/3
    # k3: e^-0.2 - 1 + 0.2 = 0.0187308;  e^0.1 - 1 - 0.1 = 0.0051709;  e^-0.3 - 1 + 0.3 = 0.0408182; mean 0.0215733
    ref = torch.tensor([[-2.0, -1.0], [-3.0, 5.0]])
    policy = ref + torch.tensor([[0.2, -0.1], [0.3, 100.0]])
    kl = estimate_kl(policy, ref, torch.tensor([[True, True], [True, False]]))
    assert kl.sequence == pytest.approx(0.2, abs=1e-6)
    assert kl.token == pytest.approx(0.4 / 3, abs=1e-6)
    assert kl.k3 == pytest.approx(0.0215733, abs=1e-6)


def test_k3_is_never_negative_where_k1_is() -> None:
    mask = torch.ones((1, 1), dtype=torch.bool)
    kl = estimate_kl(torch.tensor([[-2.0]]), torch.tensor([[-1.0]]), mask)
    # k1 = -1;  k3 = e^1 - 1 - 1 = 0.7182818
    assert kl.sequence == -1.0
    assert kl.k3 == pytest.approx(0.7182818)


def test_equal_policies_have_no_kl() -> None:
    logprobs = torch.randn(3, 4)
    kl = estimate_kl(logprobs, logprobs, torch.ones((3, 4), dtype=torch.bool))
    assert (kl.sequence, kl.token, kl.k3) == (0.0, 0.0, 0.0)


def test_adaptive_moves_by_a_fifth_at_most_in_each_direction() -> None:
    kl = controller()
    # 100 samples, horizon 1000. KL 12: 12/6 - 1 = 1, clipped to 0.2 → 0.1·(1 + 0.2·0.1) = 0.102
    kl.update(0, 12.0, 100)
    assert kl.beta == pytest.approx(0.102)
    # KL 6.6: 0.1 → 0.102·(1 + 0.1·0.1) = 0.10302
    kl.update(1, 6.6, 100)
    assert kl.beta == pytest.approx(0.10302)
    # KL 0.6: -0.9, clipped to -0.2 → 0.10302·0.98 = 0.1009596
    kl.update(2, 0.6, 100)
    assert kl.beta == pytest.approx(0.1009596)


def test_adaptive_does_not_fall_below_its_start_before_the_target_was_reached() -> None:
    kl = controller()
    for step in range(5):
        kl.update(step, 0.5, 100)
        assert kl.beta == 0.1
    # Reached at exactly the target: error 0 → unchanged; from then on it may fall: 0.1·0.98 = 0.098
    kl.update(5, 6.0, 100)
    assert kl.beta == 0.1
    kl.update(6, 0.5, 100)
    assert kl.beta == pytest.approx(0.098)


def test_linear_falls_to_zero_at_the_last_step() -> None:
    kl = controller("linear")
    seen = [kl.beta]
    for step in range(5):
        kl.update(step, 50.0, 100)
        seen.append(kl.beta)
    # 0.1·(1 - n/4) for n = 0..4, then it stays at 0
    assert seen == pytest.approx([0.1, 0.075, 0.05, 0.025, 0.0, 0.0])


def test_fixed_stays() -> None:
    kl = controller("fixed")
    kl.update(0, 50.0, 100)
    kl.update(1, 0.0, 100)
    assert kl.beta == 0.1


def test_state_survives_json_and_goes_on_the_same() -> None:
    first, second = controller(), controller()
    for step, seen in enumerate((3.1, 12.7, 4.3)):
        first.update(step, seen, 37)
    second.restore(json.loads(json.dumps(first.state())))
    assert second.state() == first.state()
    first.update(3, 1.7, 37)
    second.update(3, 1.7, 37)
    # `reached` came along: without it the second would be held at its start.
    assert second.beta == first.beta
    assert second.reached
