import torch

from services.trainer.ppo.advantages import explained_variance, gae, whiten

MASK = torch.tensor([[True, True, False], [True, True, True]])


def test_gae_by_hand_on_responses_of_unequal_length() -> None:
    # γ=0.9, λ=0.5, γλ=0.45. What stands outside the mask (99, 77) must not matter.
    # Row 0: δ1 = 2 + 0 - 0.25 = 1.75              A1 = 1.75
    #        δ0 = 1 + 0.9·0.25 - 0.5 = 0.725        A0 = 0.725 + 0.45·1.75 = 1.5125
    # Row 1: δ2 = 1 - 0.3 = 0.7                     A2 = 0.7
    #        δ1 = 0 + 0.9·0.3 - 0.2 = 0.07          A1 = 0.07 + 0.45·0.7 = 0.385
    #        δ0 = 0 + 0.9·0.2 - 0.1 = 0.08          A0 = 0.08 + 0.45·0.385 = 0.25325
    rewards = torch.tensor([[1.0, 2.0, 99.0], [0.0, 0.0, 1.0]])
    values = torch.tensor([[0.5, 0.25, 77.0], [0.1, 0.2, 0.3]])
    advantages, returns = gae(rewards, values, MASK, gamma=0.9, lam=0.5)
    torch.testing.assert_close(advantages, torch.tensor([[1.5125, 1.75, 0.0], [0.25325, 0.385, 0.7]]))
    # returns = A + V
    torch.testing.assert_close(returns, torch.tensor([[2.0125, 2.0, 0.0], [0.35325, 0.585, 1.0]]))


def test_gae_with_gamma_and_lambda_1_is_the_rest_of_the_rewards_less_the_value() -> None:
    # Row 0: 1 + 2 - 0.5 = 2.5 and 2 - 0.25 = 1.75.  Row 1: 1 - 0.1, 1 - 0.2, 1 - 0.3
    rewards = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
    values = torch.tensor([[0.5, 0.25, 0.0], [0.1, 0.2, 0.3]])
    advantages, returns = gae(rewards, values, MASK, gamma=1.0, lam=1.0)
    torch.testing.assert_close(advantages, torch.tensor([[2.5, 1.75, 0.0], [0.9, 0.8, 0.7]]))
    torch.testing.assert_close(returns, torch.tensor([[3.0, 2.0, 0.0], [1.0, 1.0, 1.0]]))


def test_gae_with_lambda_0_is_one_step_ahead() -> None:
    # γ=0.9: δ0 = 1 + 0.9·0.25 - 0.5 = 0.725, δ1 = 2 - 0.25 = 1.75
    mask = torch.ones((1, 2), dtype=torch.bool)
    advantages, _ = gae(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 0.25]]), mask, gamma=0.9, lam=0.0)
    torch.testing.assert_close(advantages, torch.tensor([[0.725, 1.75]]))


def test_gae_changes_none_of_its_inputs() -> None:
    rewards, values = torch.tensor([[1.0, 2.0, 99.0]]), torch.tensor([[0.5, 0.25, 77.0]])
    gae(rewards, values, MASK[:1], 0.9, 0.5)
    assert rewards.tolist() == [[1.0, 2.0, 99.0]]
    assert values.tolist() == [[0.5, 0.25, 77.0]]


def test_whiten_by_hand() -> None:
    # masked values 1, 2 | 3, 4, 5: mean 3, population variance (4 + 1 + 0 + 1 + 4)/5 = 2, 1/√2 = 0.70710678
    advantages = torch.tensor([[1.0, 2.0, 99.0], [3.0, 4.0, 5.0]])
    expected = torch.tensor([[-2.0, -1.0, 0.0], [0.0, 1.0, 2.0]]) * 0.70710678
    torch.testing.assert_close(whiten(advantages, MASK), expected)


def test_whiten_of_equal_advantages_is_zero_and_not_nan() -> None:
    assert whiten(torch.full((2, 3), 5.0), MASK).tolist() == [[0.0] * 3] * 2
    assert whiten(torch.tensor([[5.0]]), torch.tensor([[True]])).tolist() == [[0.0]]


def test_explained_variance_by_hand() -> None:
    # R = 1, 3 (mean 2, variance 1); V = 1, 2: R - V = 0, 1 (mean 0.5, variance 0.25) → 1 - 0.25/1 = 0.75
    mask = torch.tensor([[True, True, False]])
    returns = torch.tensor([[1.0, 3.0, 50.0]])
    assert explained_variance(torch.tensor([[1.0, 2.0, -50.0]]), returns, mask) == 0.75
    # V = 3, 1: R - V = -2, 2 (variance 4) → 1 - 4/1 = -3
    assert explained_variance(torch.tensor([[3.0, 1.0, -50.0]]), returns, mask) == -3.0
    assert explained_variance(returns, returns, mask) == 1.0


def test_explained_variance_of_returns_that_do_not_vary_is_zero() -> None:
    mask = torch.tensor([[True, True]])
    assert explained_variance(torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 2.0]]), mask) == 0.0
