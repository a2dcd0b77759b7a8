import math

import torch

from services.trainer.ppo.losses import importance_weights, policy_loss, value_loss

ONES = torch.ones(5)


def test_policy_loss_by_hand() -> None:
    # ε=0.2, 5 tokens.     ratio  A    -A·ratio  -A·clip  max    clipped?
    #                       1.5   1     -1.5     -1.2    -1.2    yes
    #                       1.5  -1      1.5      1.2     1.5    no
    #                       0.5   1     -0.5     -0.8    -0.5    no
    #                       0.5  -1      0.5      0.8     0.8    yes
    #                       1.0   2     -2.0     -2.0    -2.0    no
    # loss = (-1.2 + 1.5 - 0.5 + 0.8 - 2)/5 = -1.4/5 = -0.28; clip fraction 2/5; ratio (1.5+1.5+0.5+0.5+1)/5 = 1
    # approx KL: 2·(0.5 - log 1.5) + 2·(-0.5 + log 2) = 2·0.0945349 + 2·0.1931472 = 0.5753642, /5 = 0.1150728
    # mean |log ratio|: (2·0.4054651 + 2·0.6931472)/5 = 0.4394449
    old = torch.tensor([-3.0, -2.0, -1.0, -0.5, -4.0])
    new = (old + torch.tensor([1.5, 1.5, 0.5, 0.5, 1.0]).log()).requires_grad_()
    result = policy_loss(new, old, torch.tensor([1.0, -1.0, 1.0, -1.0, 2.0]), ONES, 5, clip_ratio=0.2)
    torch.testing.assert_close(result.loss, torch.tensor(-0.28))
    torch.testing.assert_close(result.clip_fraction, torch.tensor(0.4))
    torch.testing.assert_close(result.approx_kl, torch.tensor(0.1150728))
    torch.testing.assert_close(result.ratio, torch.tensor(1.0))
    torch.testing.assert_close(result.log_ratio, torch.tensor(0.4394449))
    # ∂/∂new = -A·ratio/5 where not clipped: 1.5/5, -0.5/5, -2/5; clipped tokens learn nothing.
    result.loss.backward()
    torch.testing.assert_close(new.grad, torch.tensor([0.0, 0.3, -0.1, 0.0, -0.4]))


def test_importance_weights_scale_each_token_of_the_policy_loss() -> None:
    # ratio 1 everywhere: (-2·1·1 - 0.5·1·(-3) )/2 = (-2 + 1.5)/2 = -0.25; gradient -A·w/2: -1, 0.75
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
    weights, advantages = torch.tensor([2.0, 0.5]), torch.tensor([1.0, -3.0])
    result = policy_loss(logprobs, logprobs.detach(), advantages, weights, 2, clip_ratio=0.2)
    torch.testing.assert_close(result.loss, torch.tensor(-0.25))
    result.loss.backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([-1.0, 0.75]))
    # They weigh the loss, not the readings.
    assert result.ratio == 1.0


def test_the_dual_clip_bounds_the_loss_of_bad_tokens_by_hand() -> None:
    # ε=0.2, c=3.  ratio  A    max(-A·ratio, -A·clip)   with the dual clip
    #               5    -2    10                        min(10, 3·2) = 6, and no gradient
    #               2    -1     2                        min(2, 3) = 2, gradient -A·ratio = 2
    #               5     1    -1.2                      as before: A is positive, and the clip ends its gradient
    # loss = (6 + 2 - 1.2)/3 = 2.2666667
    new = torch.tensor([5.0, 2.0, 5.0]).log().requires_grad_()
    loss = policy_loss(new, torch.zeros(3), torch.tensor([-2.0, -1.0, 1.0]), torch.ones(3), 3, 0.2, dual_clip=3.0).loss
    torch.testing.assert_close(loss, torch.tensor(2.2666667))
    loss.backward()
    torch.testing.assert_close(new.grad, torch.tensor([0.0, 2 / 3, 0.0]))


def test_parts_of_a_minibatch_add_up() -> None:
    torch.manual_seed(0)
    new, old, advantages, weights = torch.randn(4, 6).unbind()
    whole = policy_loss(new, old, advantages, weights, 6, 0.2)
    parts = [
        policy_loss(*(x[part] for x in (new, old, advantages, weights)), 6, 0.2) for part in (slice(2), slice(2, 6))
    ]
    for name in ("loss", "clip_fraction", "approx_kl", "ratio", "log_ratio"):
        torch.testing.assert_close(sum(getattr(part, name) for part in parts), getattr(whole, name))


def test_an_enormous_ratio_stays_finite() -> None:
    # log ratio 500 is clamped to 20: loss = e^20 = 485165195.4; of the other, clamped to -20, e^-20
    new = torch.tensor([500.0, -500.0])
    result = policy_loss(new, torch.zeros(2), torch.tensor([-1.0, 1.0]), torch.ones(2), 1, 0.2)
    torch.testing.assert_close(result.loss, torch.tensor(math.exp(20) - math.exp(-20)))


def test_value_loss_by_hand() -> None:
    # c=0.2      V    V_old  R    (V-R)²  clipped V  (clip-R)²  larger
    #            1.0  0.5   2.0   1.0     0.7        1.69       1.69   clipped: no gradient
    #            0.6  0.5   2.0   1.96    0.6        1.96       1.96   inside the range
    #            1.0  0.5   0.6   0.16    0.7        0.01       0.16   beyond R: the plain one pulls back
    # 0.5·(1.69 + 1.96 + 0.16)/3 = 0.635;  gradient (V - R)/3: 0, -1.4/3, 0.4/3
    values = torch.tensor([1.0, 0.6, 1.0], requires_grad=True)
    loss = value_loss(values, torch.full((3,), 0.5), torch.tensor([2.0, 2.0, 0.6]), 3, clip_value=0.2)
    torch.testing.assert_close(loss, torch.tensor(0.635))
    loss.backward()
    torch.testing.assert_close(values.grad, torch.tensor([0.0, -1.4 / 3, 0.4 / 3]))


def test_importance_weights_are_capped_above_only() -> None:
    # exp(log 1.5) = 1.5; exp(log 3) = 3 → 2; exp(log 0.25) = 0.25; e^500 → 2
    difference = torch.cat([torch.tensor([1.5, 3.0, 0.25]).log(), torch.tensor([500.0])])
    behavior = torch.tensor([-1.0, -2.0, -3.0, -500.0])
    weights = importance_weights(behavior + difference, behavior, cap=2.0)
    torch.testing.assert_close(weights, torch.tensor([1.5, 2.0, 0.25, 2.0]))
