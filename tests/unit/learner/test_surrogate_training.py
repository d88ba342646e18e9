"""Step B1: which rows make a tiny-batch, and when it ends early."""

import numpy as np
import pytest
import torch

from learner.config import SurrogateConfig
from learner.losses import surrogate_loss
from learner.networks import QuantumSurrogate
from learner.surrogate_training import SurrogateTrainer

ROWS = 48


def make_trainer(num_tiny_batches=4, tiny_batch_size=16, learning_rate=1e-2):
    config = SurrogateConfig(
        num_tiny_batches=num_tiny_batches, tiny_batch_size=tiny_batch_size, learning_rate=learning_rate
    )
    torch.manual_seed(0)
    return SurrogateTrainer(QuantumSurrogate(6, 2, 16), config, torch.Generator().manual_seed(5))


def make_pairs():
    rng = np.random.default_rng(0)
    parameters = torch.from_numpy(rng.standard_normal((ROWS, 6)).astype(np.float32))
    return parameters, torch.sigmoid(3 * parameters[:, :2])


def test_tiny_batches_are_permutations_of_the_rows_in_a_row():
    trainer, twin = make_trainer(), make_trainer()
    parameters, targets = make_pairs()
    loss = trainer.fit(parameters, targets)
    generator = torch.Generator().manual_seed(5)
    order = torch.cat([torch.randperm(ROWS, generator=generator) for _ in range(2)])
    for first in range(0, 64, 16):
        rows = order[first : first + 16]
        expected = surrogate_loss(twin.surrogate.logits(parameters[rows]), targets[rows])
        twin.optimizer.zero_grad()
        expected.backward()
        twin.optimizer.step()
    assert torch.equal(loss, expected.detach())
    for ours, theirs in zip(trainer.surrogate.parameters(), twin.surrogate.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_without_a_good_tiny_batch_all_are_used_and_numbers_are_those_of_fit():
    trainer, twin = make_trainer(), make_trainer()
    parameters, targets = make_pairs()
    _, count = trainer.fit_until(parameters, targets, torch.zeros(ROWS), tolerance=1e-9)
    twin.fit(parameters, targets)
    assert count == 4
    for ours, theirs in zip(trainer.surrogate.parameters(), twin.surrogate.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_converged_surrogate_is_left_alone():
    trainer = make_trainer()
    parameters, _ = make_pairs()
    targets = trainer.surrogate(parameters).detach()
    floor = surrogate_loss(trainer.surrogate.logits(parameters), targets).detach().expand(ROWS)
    before = [parameter.clone() for parameter in trainer.surrogate.parameters()]
    _, count = trainer.fit_until(parameters, targets, floor, tolerance=0.05)
    assert count == 0
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.surrogate.parameters(), strict=True))


def test_it_stops_in_the_middle_once_it_has_learned():
    trainer = make_trainer(num_tiny_batches=400)
    parameters, targets = make_pairs()
    floor = torch.nn.functional.binary_cross_entropy(targets, targets, reduction="none").mean(dim=1)
    loss, count = trainer.fit_until(parameters, targets, floor, tolerance=0.02)
    assert 0 < count < 400
    assert float(loss) == pytest.approx(float(floor.mean()), abs=0.1)
