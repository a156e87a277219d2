"""Muon's update, number by number."""

import math

import torch
from torch import nn

from pyrf.training.runner.optim import Muon, orthogonalize


def test_weights_decay_by_the_learning_rate_without_a_gradient() -> None:
    weight = nn.Parameter(torch.full((2, 3), 2.0))
    weight.grad = torch.zeros(2, 3)
    optimizer = Muon([weight], lr=0.5, weight_decay=0.1)
    for _ in range(3):
        optimizer.step()
    torch.testing.assert_close(weight.data, torch.full((2, 3), 2.0 * 0.95**3))


def test_an_update_is_momentum_that_looks_ahead_orthogonal_and_of_adamws_size() -> None:
    generator = torch.Generator().manual_seed(0)
    kernel = nn.Parameter(torch.zeros(4, 3, 2, 2))
    optimizer = Muon([kernel], lr=0.5, momentum=0.9, weight_decay=0.0)
    buffer, expected = torch.zeros(4, 12), torch.zeros(4, 12)
    for _ in range(2):
        gradient = torch.randn(4, 12, generator=generator)
        kernel.grad = gradient.view(4, 3, 2, 2).clone()
        optimizer.step()
        buffer = 0.9 * buffer + gradient
        expected -= 0.5 * 0.2 * math.sqrt(12) * orthogonalize(gradient + 0.9 * buffer)
    torch.testing.assert_close(kernel.data.flatten(1), expected)
    singular = torch.linalg.svdvals(orthogonalize(torch.randn(4, 12, generator=generator)))
    assert ((singular > 0.6) & (singular < 1.3)).all()
