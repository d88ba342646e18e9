"""A saved learner goes on bit for bit; a state of other sizes is refused with names and shapes."""

import json

import numpy as np
import pytest
import torch

from learner.critic_config import CriticConfig
from learner.errors import StateMismatchError
from learner.networks import PolicyNetwork
from learner.parameter_loading import load_parameters
from learner.parameters import ParameterBoard, VersionedParameters
from learner.state import learner_state, load_learner_state
from tests.unit.learner.test_td3 import SPEC, make_batch, make_learner


def assert_resumes_bit_for_bit(make, learn):
    """``learn(learner, seed)`` twice in a row, and with a saved state in between, lead to the same learner."""
    straight, first, second = make(), make(), make()
    learn(straight, 0)
    learn(straight, 1)
    learn(first, 0)
    tensors, scalars = learner_state(first)
    load_learner_state(second, tensors, json.loads(json.dumps(scalars)))
    learn(second, 1)
    expected, found = learner_state(straight)[0], learner_state(second)[0]
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert straight.metrics() == second.metrics()


@pytest.mark.parametrize("block", ["pqc", "linear", "random_bits"])
def test_resumed_learner_is_bit_identical(block):
    def learn(learner, seed):
        rng = np.random.default_rng(seed)
        for _ in range(3):
            learner.update(make_batch(rng, has_circuit=block == "pqc"))

    assert_resumes_bit_for_bit(lambda: make_learner(block), learn)


def test_dropout_of_a_resumed_learner_goes_on_and_no_other_random_numbers_matter():
    droq = CriticConfig(architecture="mlp", hidden_size=16, normalisation="layer", dropout=0.3)

    def learn(learner, seed):
        rng = np.random.default_rng(seed)
        for _ in range(3):
            torch.seed()
            learner.update(make_batch(rng))

    assert_resumes_bit_for_bit(lambda: make_learner(critic=droq), learn)


def test_state_of_another_size_is_refused():
    tensors, scalars = learner_state(make_learner())
    tensors["policy.pre.0.weight"] = torch.zeros(16, 9)
    with pytest.raises(StateMismatchError, match=r"policy\.pre\.0\.weight has shape \(16, 9\), expected \(16, 4\)"):
        load_learner_state(make_learner(), tensors, scalars)


def test_state_of_another_block_is_refused():
    tensors, scalars = learner_state(make_learner("zeros"))
    with pytest.raises(StateMismatchError, match=r"'zeros', this run has 'pqc'"):
        load_learner_state(make_learner(), tensors, scalars)


def test_board_hands_out_only_newer_versions_and_ignores_late_ones():
    board = ParameterBoard()
    assert board.get_parameters(newer_than=0) is None
    for version in (2, 1):
        board.publish(VersionedParameters(version=version, arrays={}, env_step=0))
    newest = board.get_parameters(newer_than=1)
    assert newest is not None
    assert newest.version == 2
    assert board.get_parameters(newer_than=2) is None


def test_published_parameters_reach_the_acting_network():
    learner = make_learner()
    network = PolicyNetwork(SPEC, make_config(), "pqc")
    load_parameters(network, VersionedParameters(version=1, arrays=learner.policy_parameters(), env_step=0))
    for mine, theirs in zip(network.parameters(), learner.policy.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_published_parameters_of_another_policy_are_refused():
    arrays = make_learner("linear").policy_parameters()
    with pytest.raises(StateMismatchError, match="built from the same configuration"):
        load_parameters(
            PolicyNetwork(SPEC, make_config(), "pqc"), VersionedParameters(version=1, arrays=arrays, env_step=0)
        )


def make_config():
    from learner.config import PolicyConfig
    from tests.unit.learner.test_td3 import CIRCUIT

    return PolicyConfig(hidden_size=16, num_links=2, circuit=CIRCUIT)
