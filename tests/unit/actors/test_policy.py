"""The acting policy: split where it waits, deterministic in its generator, always inside the action bounds."""

import dataclasses

import numpy as np
import pytest

from actors.errors import InvalidActionError
from learner.config import BLOCKS, AgentSpec
from learner.errors import StateMismatchError
from learner.parameters import ParameterBoard, VersionedParameters
from tests.unit.actors.fakes import CIRCUIT, RecordingSampler
from tests.unit.actors.rollouts import make_policy

SPEC = AgentSpec(observation_size=2, action_low=(-2.0, 0.0), action_high=(2.0, 1.0))
OBSERVATION = np.random.default_rng(0).standard_normal((6, 2)).astype(np.float32)


def test_begin_submits_one_request_with_a_circuit_per_environment():
    sampler = RecordingSampler()
    policy = make_policy(SPEC, sampler=sampler)
    pending = policy.begin(OBSERVATION)
    assert sampler.events == [("submit", "policy-1")]
    (request,) = sampler.requests
    assert request.angles.shape == (6, CIRCUIT.num_layers, CIRCUIT.num_qubits, 2)
    assert len(set(request.seeds.tolist())) == 6
    output = policy.finish(pending)
    assert sampler.events[1:] == [("result", "policy-1")]
    assert output.action.shape == (6, 2)
    assert output.circuit_parameters.shape == (6, CIRCUIT.num_parameters)
    assert output.bits.shape == (6, CIRCUIT.num_qubits)


def test_unentangled_policy_asks_for_circuits_without_entanglers():
    asked = {}
    for block in ("pqc", "unentangled_pqc"):
        sampler = RecordingSampler()
        policy = make_policy(SPEC, block, sampler)
        output = policy.finish(policy.begin(100 * OBSERVATION))
        assert output.bits.shape == (6, CIRCUIT.num_qubits)
        asked[block] = sampler.requests[0]
    pairs = {block: request.entangler_pairs for block, request in asked.items()}
    assert (pairs["pqc"][..., 0] != pairs["pqc"][..., 1]).any()
    assert (pairs["unentangled_pqc"][..., 0] == pairs["unentangled_pqc"][..., 1]).all()
    np.testing.assert_array_equal(asked["pqc"].angles, asked["unentangled_pqc"].angles)


def test_circuit_seeds_are_never_used_twice():
    sampler = RecordingSampler()
    policy = make_policy(SPEC, sampler=sampler)
    for _ in range(20):
        policy.finish(policy.begin(OBSERVATION))
    seeds = np.concatenate([request.seeds for request in sampler.requests])
    assert len(np.unique(seeds)) == 120


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("block", ["pqc", "linear"])
def test_an_action_that_is_not_finite_reaches_no_environment(block, value):
    policy = make_policy(SPEC, block, RecordingSampler())
    pending = policy.begin(OBSERVATION)
    broken = pending.links.clone()
    broken[4] = value
    with pytest.raises(InvalidActionError, match=r"version 0 of the policy gave nan as component 0 .* environment 4"):
        policy.finish(dataclasses.replace(pending, links=broken))


@pytest.mark.parametrize("block", BLOCKS)
def test_actions_are_inside_the_bounds_of_each_component(block):
    policy = make_policy(SPEC, block, RecordingSampler())
    action = policy.finish(policy.begin(1e4 * OBSERVATION)).action
    assert action.dtype == np.float32
    assert (action >= SPEC.action_low).all()
    assert (action <= SPEC.action_high).all()


@pytest.mark.parametrize("block", ["pqc", "random_bits"])
def test_a_restored_random_state_repeats_circuits_and_bits(block):
    policy = make_policy(SPEC, block, RecordingSampler())
    state = policy.random_state()
    first = policy.finish(policy.begin(OBSERVATION))
    moved_on = policy.finish(policy.begin(OBSERVATION))
    policy.restore_random_state(state)
    again = policy.finish(policy.begin(OBSERVATION))
    np.testing.assert_array_equal(first.action, again.action)
    assert not np.array_equal(first.action, moved_on.action)


def test_refresh_takes_newer_parameters_only():
    board = ParameterBoard()
    policy, newer = make_policy(SPEC, seed=0), make_policy(SPEC, seed=1)
    arrays = {name: value.detach().numpy() for name, value in newer.network.named_parameters()}
    policy.refresh(board)
    assert policy.version == 0
    board.publish(VersionedParameters(version=3, arrays=arrays, env_step=0))
    policy.version = 3
    policy.refresh(board)
    assert not np.array_equal(policy.network.pre[0].weight.detach(), newer.network.pre[0].weight.detach())
    policy.version = 2
    policy.refresh(board)
    assert policy.version == 3
    np.testing.assert_array_equal(policy.network.pre[0].weight.detach(), newer.network.pre[0].weight.detach())


def test_parameters_of_another_network_are_refused():
    board = ParameterBoard()
    other = make_policy(AgentSpec(observation_size=3, action_low=(0.0,), action_high=(1.0,)))
    arrays = {name: value.detach().numpy() for name, value in other.network.named_parameters()}
    board.publish(VersionedParameters(version=1, arrays=arrays, env_step=0))
    policy = make_policy(SPEC)
    with pytest.raises(StateMismatchError, match=r"pre\.0\.weight has shape .*expected"):
        policy.refresh(board)
    assert policy.version == 0


def test_late_bits_are_an_error():
    class Late(RecordingSampler):
        def submit(self, circuits):
            super().submit(circuits)
            return self

        def result(self, timeout_s):
            raise TimeoutError(f"no bits within {timeout_s} s")

    policy = make_policy(SPEC, sampler=Late())
    with pytest.raises(TimeoutError, match=r"600\.0 s"):
        policy.finish(policy.begin(OBSERVATION))
