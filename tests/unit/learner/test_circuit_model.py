"""What learning sees of the circuit: exact means and gradients, where the surrogate is fitted, how it is judged."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from learner.circuit_model import CircuitModel
from learner.config import PolicyConfig, SurrogateConfig, TD3Config
from learner.exact_circuit import ExactCircuit
from learner.networks import QuantumSurrogate
from learner.surrogate_quality import bit_entropy, fit_quality, gradient_quality, num_measured_rows
from learner.surrogate_training import SurrogateTrainer
from learner.td3 import TD3Learner
from tests.unit.learner.test_td3 import CIRCUIT, SPEC, changed, make_batch, snapshot


def make_learner(block="pqc", **surrogate):
    return TD3Learner(
        SPEC,
        block=block,
        policy_config=PolicyConfig(hidden_size=16, num_links=2, circuit=CIRCUIT),
        surrogate_config=SurrogateConfig(hidden_size=32, num_tiny_batches=4, tiny_batch_size=16, **surrogate),
        config=TD3Config(),
        seed=3,
    )


def some_parameters(rows=5, seed=0):
    values = np.random.default_rng(seed).uniform(-3, 3, (rows, CIRCUIT.num_parameters)).astype(np.float32)
    return torch.from_numpy(values)


@pytest.mark.parametrize("block", ["pqc", "unentangled_pqc"])
def test_exact_gradients_are_finite_differences_and_zero_in_the_qubit_indices(block):
    exact, step = ExactCircuit(block, CIRCUIT), 0.01
    parameters = some_parameters().requires_grad_()
    weights = torch.tensor([1.0, -2.0, 0.5])
    (gradient,) = torch.autograd.grad((exact.bit_means(parameters) @ weights).sum(), parameters)
    layers = gradient.reshape(5, CIRCUIT.num_layers, -1)
    assert (layers[:, :, -2:] == 0).all()
    for place in range(6):
        moved = step * functional.one_hot(torch.tensor(place), CIRCUIT.num_parameters)
        with torch.no_grad():
            difference = (exact.bit_means(parameters + moved) - exact.bit_means(parameters - moved)) @ weights
        torch.testing.assert_close(gradient[:, place], difference / (2 * step), atol=2e-3, rtol=0)


def test_without_entanglers_a_qubit_depends_on_its_own_angles_alone():
    parameters = some_parameters().requires_grad_()
    means = ExactCircuit("unentangled_pqc", CIRCUIT).bit_means(parameters)
    (gradient,) = torch.autograd.grad(means[:, 1].sum(), parameters)
    own = gradient.reshape(5, CIRCUIT.num_layers, -1)
    assert (own[:, :, 2:4] != 0).any()
    own[:, :, 2:4] = 0
    assert (own == 0).all()


def test_exact_training_goes_through_the_circuit_and_leaves_the_surrogate_alone():
    learner = make_learner(gradient="exact")
    batch = learner._to_device(make_batch(np.random.default_rng(0)))
    surrogate, before = snapshot(learner.surrogate), snapshot(learner.policy)
    circuit_parameters, links = learner.policy.encode(batch.observation)
    action = learner.policy.decode(ExactCircuit("pqc", CIRCUIT).bit_means(circuit_parameters), links)
    loss = -learner.critic(batch.observation, action)[0].mean()
    expected = torch.autograd.grad(loss, list(learner.policy.parameters()))
    learner._update_surrogate(batch)
    learner._update_policy(batch)
    assert not changed(surrogate, learner.surrogate)
    assert changed(before, learner.policy)
    for parameter, gradient in zip(learner.policy.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


class RecordingTrainer(SurrogateTrainer):
    """Keeps what it is given."""

    def fit(self, circuit_parameters, targets):
        self.given = circuit_parameters, targets
        return super().fit(circuit_parameters, targets)


def pairs_of(learner, batch):
    """What step B1 fits to what."""
    trainer = RecordingTrainer(learner.surrogate, learner.surrogate_config, learner.generator)
    model = CircuitModel("pqc", CIRCUIT, trainer, learner.generator)
    model.fit(batch, learner.policy, learner.target_policy)
    return trainer.given


def test_replay_is_fitted_to_stored_bits_or_to_exact_means():
    learner = make_learner()
    batch = learner._to_device(make_batch(np.random.default_rng(0)))
    parameters, targets = pairs_of(learner, batch)
    assert parameters is batch.circuit_parameters
    assert targets is batch.bits
    parameters, targets = pairs_of(make_learner(targets="bit_means"), batch)
    assert parameters is batch.circuit_parameters
    assert torch.equal(targets, ExactCircuit("pqc", CIRCUIT).bit_means(parameters))


def test_fitting_on_the_policy_asks_where_steps_b2_and_b3_will():
    learner = make_learner(targets="bit_means", fit_on="policy")
    batch = learner._to_device(make_batch(np.random.default_rng(0)))
    with torch.no_grad():
        for parameter in learner.target_policy.parameters():
            parameter += 0.1
        now = learner.policy.encode(batch.observation)[0]
        later = learner.target_policy.encode(batch.next_observation)[0]
    parameters, targets = pairs_of(learner, batch)
    assert torch.equal(parameters, torch.cat([now, later]))
    assert torch.equal(targets, ExactCircuit("pqc", CIRCUIT).bit_means(parameters))
    moved, _ = pairs_of(make_learner(targets="bit_means", fit_on="policy", jitter_rad=0.3), batch)
    noise = moved[: len(now)] - now
    # 64 × 16 normal numbers: their std is within 10 % but for one case in 10^5
    assert float(noise.std()) == pytest.approx(0.3, rel=0.1)


def test_tiny_batches_are_counted_where_their_number_may_vary():
    learner = make_learner(tolerance=1e-6)
    learner.update(make_batch(np.random.default_rng(0)))
    assert learner.metrics()["surrogate_tiny_batches"] == 4
    learner = make_learner(tolerance=100.0, targets="bit_means")
    learner.update(make_batch(np.random.default_rng(0)))
    assert learner.metrics()["surrogate_tiny_batches"] == 0


class Oracle(QuantumSurrogate):
    """A surrogate that is the circuit."""

    def logits(self, circuit_parameters):
        return torch.logit(ExactCircuit("pqc", CIRCUIT).bit_means(circuit_parameters))


def test_a_perfect_surrogate_has_no_excess_no_error_and_cosine_one():
    perfect, exact = Oracle(CIRCUIT.num_parameters, 3, 4), ExactCircuit("pqc", CIRCUIT)
    torch.manual_seed(0)
    pre = torch.nn.Linear(4, CIRCUIT.num_parameters)
    parameters = pre(torch.randn(20, 4))
    fit = fit_quality(perfect, exact, parameters.detach())
    assert float(fit["surrogate_excess_loss"]) == pytest.approx(0, abs=1e-6)
    assert float(fit["surrogate_mean_error"]) == pytest.approx(0, abs=1e-6)
    assert 0 < float(fit["surrogate_entropy_floor"]) < np.log(2)
    found = gradient_quality(
        perfect,
        exact,
        parameters,
        loss=lambda output: (output @ torch.tensor([1.0, 2.0, -1.0])).square().mean(),
        shape=CIRCUIT,
        weights=list(pre.parameters()),
    )
    assert {name: pytest.approx(float(value), abs=1e-4) for name, value in found.items()} == {
        "surrogate_gradient_cosine": 1.0,
        "surrogate_update_cosine": 1.0,
    }


def test_excess_is_the_divergence_from_the_exact_bits():
    surrogate, exact = QuantumSurrogate(CIRCUIT.num_parameters, 3, 4), ExactCircuit("pqc", CIRCUIT)
    parameters = some_parameters(8)
    with torch.no_grad():
        p, q = exact.bit_means(parameters), surrogate(parameters)
    divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    found = fit_quality(surrogate, exact, parameters)
    torch.testing.assert_close(found["surrogate_excess_loss"], divergence.mean(), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(found["surrogate_mean_error"], (p - q).abs().mean())
    expected = -(p * p.log() + (1 - p) * (1 - p).log()).mean(dim=1)
    torch.testing.assert_close(bit_entropy(p), expected)


def test_entropy_of_a_mean_that_round_off_put_above_one_is_that_of_one():
    # What a device's sums of |amplitude|² give where every angle is a multiple of π.
    assert bit_entropy(torch.tensor([[1.0 + 7e-6, 1.0, 0.0, -1e-7]])).tolist() == [0.0]


@pytest.mark.parametrize(("block", "has_update"), [("pqc", True), ("frozen_pqc", False)])
def test_quality_is_measured_at_its_period_and_changes_nothing(block, has_update):
    learner, twin = make_learner(block, quality_period_updates=2), make_learner(block, quality_period_updates=None)
    rng = np.random.default_rng(0)
    for update in range(1, 5):
        batch = make_batch(rng)
        learner.update(batch)
        twin.update(batch)
        metrics = learner.metrics()
        assert ("surrogate_gradient_cosine" in metrics) == (update % 2 == 0)
        assert ("surrogate_update_cosine" in metrics) == (update % 2 == 0 and has_update)
        assert "surrogate_mean_error" not in twin.metrics()
    for ours, theirs in zip(learner.policy.parameters(), twin.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_rows_measured_shrink_with_the_circuit():
    assert [num_measured_rows(n) for n in (1, 10, 12, 16, 20)] == [64, 64, 16, 1, 1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fit_on": "policy"}, r"the replay holds no bits .* set surrogate.targets=bit_means, or fit_on=replay"),
        ({"jitter_rad": 0.1}, r"jitter_rad moves the circuits of fit_on=policy, got fit_on=replay"),
        ({"jitter_rad": -0.1}, r"jitter_rad must be 0 or more, got -0.1"),
        ({"tolerance": 0.0}, r"tolerance must be positive, or None, got 0.0"),
        ({"quality_period_updates": 0}, r"quality_period_updates must be at least 1, or None, got 0"),
    ],
)
def test_impossible_settings_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SurrogateConfig(), **fields)
