import math

import torch

from rlhf.lm.logprobs import CHUNK, token_logprobs


def test_uniform_logits_give_log_one_over_v() -> None:
    # hidden = 0 → all logits 0 → p = 1/4 each; log p = -log 4; entropy = log 4
    logprobs, entropy = token_logprobs(torch.zeros(3, 2), torch.randn(4, 2), torch.tensor([0, 1, 3]), 1.0)
    torch.testing.assert_close(logprobs, torch.full((3,), -math.log(4)))
    torch.testing.assert_close(entropy, torch.full((3,), math.log(4)))


def test_two_token_vocabulary_by_hand() -> None:
    # logits = [1, 0]·h with h = 2 and τ = 2 → [1, 0]; p = (e/(e+1), 1/(e+1)) = (0.731059, 0.268941)
    # H = -(0.731059·log 0.731059 + 0.268941·log 0.268941) = 0.229009 + 0.353194 = 0.582203
    weight = torch.tensor([[1.0], [0.0]])
    logprobs, entropy = token_logprobs(torch.tensor([[2.0], [2.0]]), weight, torch.tensor([0, 1]), 2.0)
    torch.testing.assert_close(logprobs.exp(), torch.tensor([0.731059, 0.268941]))
    torch.testing.assert_close(entropy, torch.tensor([0.582203, 0.582203]))


def test_value_and_gradient_equal_autograd_of_log_softmax_across_chunks() -> None:
    torch.manual_seed(0)
    count, width, vocabulary, tau = CHUNK + 37, 8, 50, 0.7
    hidden = torch.randn(count, width, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(vocabulary, width, dtype=torch.float64)
    targets, upstream = torch.randint(vocabulary, (count,)), torch.randn(count)
    reference = torch.log_softmax(hidden @ weight.T / tau, -1)
    (gathered := reference.gather(-1, targets[:, None])[:, 0]).backward(upstream.double())
    expected = hidden.grad.clone()
    hidden.grad = None
    logprobs, entropy = token_logprobs(hidden, weight, targets, tau)
    logprobs.backward(upstream)
    torch.testing.assert_close(logprobs, gathered.detach().float(), rtol=1e-5, atol=1e-5)
    # float32: log Z - Σ p·logit cancels where the entropy is near 0
    torch.testing.assert_close(entropy, -(reference.exp() * reference).sum(-1).detach().float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(hidden.grad, expected, rtol=1e-4, atol=1e-5)
