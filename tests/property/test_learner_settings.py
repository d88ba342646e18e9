"""Any settings that are accepted together train, go on bit for bit from a saved state, and are the same by kernels."""

import json

import numpy as np
import pytest
import torch
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from learner.acceleration import accelerate
from learner.config import BLOCKS, AgentSpec, PolicyConfig, SurrogateConfig, TD3Config, uses_circuit
from learner.critic_config import CriticConfig
from learner.state import learner_state, load_learner_state
from learner.td3 import TD3Learner
from qpu_service.circuit import CircuitShape
from replay.types import TransitionBatch

NUM_EXAMPLES = 25


def accepted(kind, **choices):
    """Settings of one kind, those that it refuses left out."""

    def build(values):
        try:
            return kind(**values)
        except ValueError:
            reject()

    drawn = {name: st.sampled_from(values) for name, values in choices.items()}
    return st.fixed_dictionaries(drawn).map(build)


CRITICS = accepted(
    CriticConfig,
    architecture=["mlp", "residual"],
    hidden_size=[16, 32, 48],
    num_layers=[1, 2, 3],
    expansion=[1, 4],
    normalisation=["none", "layer", "group", "batch"],
    num_critics=[1, 2, 3],
    num_target_critics=[None, None, 1],
    climbs=["first", "mean", "min"],
    head=["scalar", "categorical"],
    num_bins=[2, 101],
    has_target=[True, False],
    asymmetry=[0.5, 0.5, 0.2],
    final_asymmetry=[None, None, 0.5],
    adapts_asymmetry=[False, False, True],
    target_rule=["min", "min", "iterated"],
    dropout=[0.0, 0.0, 0.1],
    orthogonal=[True, False],
    unit_rows=[True, False],
)
SEGMENTED = accepted(
    CriticConfig,
    hidden_size=[16, 48],
    climbs=["first", "mean", "min"],
    has_target=[True, False],
    asymmetry=[0.5, 0.7],
    adapts_asymmetry=[False, True],
)
POLICIES = accepted(
    PolicyConfig,
    hidden_size=[8, 33],
    num_links=[0, 1, 5],
    circuit=[CircuitShape(num_qubits=n, num_layers=m) for n, m in ((1, 1), (3, 2), (5, 1))],
    normalise_observations=[True, False],
    hidden_normalisation=["none", "layer"],
    family=["deterministic", "gaussian", "flow", "variational"],
    angle_limit_rad=[None, 0.3],
    normalise_parameters=[True, False],
    num_flow_layers=[1, 3],
    latent_size=[1, 4],
)
SURROGATES = accepted(
    SurrogateConfig,
    hidden_size=[None, 7, 32],
    num_tiny_batches=[1, 3, 8],
    tiny_batch_size=[1, 4, 16],
    targets=["bits", "bit_means"],
    fit_on=["replay", "policy"],
    jitter_rad=[0.0, 0.1],
    tolerance=[None, None, 0.01],
    gradient=["surrogate", "exact"],
    quality_period_updates=[None, 1, 3],
)
RULES = accepted(
    TD3Config,
    batch_size=[1, 2, 7, 32],
    policy_delay=[1, 2, 3],
    prioritised=[False, True],
    critic_entropy=[False, True],
    scale_rewards=[False, True],
    final_learning_rate_share=[1.0, 0.1],
)


def make_batches(seed, count, rule, policy, spec, *, has_circuit):
    rng = np.random.default_rng(seed)
    rows, shape = rule.batch_size, policy.circuit

    def normal(*size):
        return rng.standard_normal(size, np.float32)

    for _ in range(count):
        yield TransitionBatch(
            observation=normal(rows, spec.observation_size),
            action=np.tanh(normal(rows, spec.action_size)),
            reward=normal(rows),
            discount=(rng.random(rows) > 0.1).astype(np.float32),
            next_observation=normal(rows, spec.observation_size),
            circuit_parameters=normal(rows, shape.num_parameters if has_circuit else 0),
            bits=(rng.random((rows, shape.num_qubits if has_circuit else 0)) > 0.5).astype(np.float32),
        )


@settings(max_examples=NUM_EXAMPLES)
@given(
    block=st.sampled_from(list(BLOCKS)),
    critic=st.one_of(CRITICS, CRITICS, SEGMENTED),
    policy=POLICIES,
    surrogate=SURROGATES,
    rule=RULES,
    sizes=st.tuples(st.sampled_from([1, 3, 11]), st.sampled_from([1, 2, 5])),
    seed=st.integers(0, 1000),
)
def test_what_is_accepted_trains_goes_on_and_is_the_same_by_kernels(
    block, critic, policy, surrogate, rule, sizes, seed
):
    observation_size, action_size = sizes
    assume(policy.family != "flow" or action_size > 1)
    spec = AgentSpec(
        observation_size=observation_size, action_low=(-1.0,) * action_size, action_high=(1.0,) * action_size
    )
    batches = list(make_batches(seed, 6, rule, policy, spec, has_circuit=uses_circuit(block)))

    def make():
        return TD3Learner(
            spec,
            block=block,
            policy_config=policy,
            surrogate_config=surrogate,
            config=rule,
            critic_config=critic,
            decay_updates=10,
            seed=seed,
        )

    def learn(learner, some):
        for batch in some:
            learner.update(batch)
            if critic.adapts_asymmetry:
                learner.calibrate(batch)
            learner.policy_parameters()

    plain, fast, resumed = make(), make(), make()
    accelerate(fast)
    accelerate(resumed)
    learn(plain, batches[:1])
    learn(fast, batches[:1])
    expected, found = plain.metrics(), fast.metrics()
    assert found.keys() == expected.keys()
    for name in {"critic_loss", "q_value", "surrogate_loss"} & expected.keys():
        # The losses of the first update; those after it feel in which direction Adam took a gradient of round-off.
        assert found[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-4), name
    learn(fast, batches[1:3])
    tensors, scalars = learner_state(fast)
    load_learner_state(resumed, tensors, json.loads(json.dumps(scalars)))
    learn(fast, batches[3:])
    learn(resumed, batches[3:])
    straight, again = learner_state(fast), learner_state(resumed)
    assert again[1] == straight[1]
    assert again[0].keys() == straight[0].keys()
    assert [name for name, value in straight[0].items() if not torch.equal(value, again[0][name])] == []
