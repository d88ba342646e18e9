"""Test rounds in this process, finished as soon as they are asked for."""

from collections.abc import Callable, Sequence

from actors.evaluator import evaluate
from actors.trajectories import TrajectoryRecorder
from cluster.build import make_policy
from cluster.config import RunConfig
from cluster.rounds import TestRound
from cluster.seeding import Stream, derive_seed
from learner.config import AgentSpec
from learner.parameter_loading import load_parameters
from learner.parameters import VersionedParameters
from qpu_service.interfaces import CircuitSampler


def run_test_round(
    config: RunConfig,
    spec: AgentSpec,
    sampler: CircuitSampler | None,
    parameters: VersionedParameters,
    *,
    on_step: Callable[[], None] = lambda: None,
    recorder: TrajectoryRecorder | None = None,
) -> TestRound:
    """One round; it depends on the run's seed and the parameters alone.

    ``on_step`` is called before each step, ``recorder`` is given every transition.
    """
    policy = make_policy(config, spec, sampler, Stream.EVALUATION_CIRCUITS, parameters.version)
    load_parameters(policy.network, parameters)
    returns = evaluate(
        policy,
        config.env_id,
        num_episodes=config.evaluation.num_episodes,
        # Other start states in every round: ten fixed ones would favour or punish a whole run.
        seed=derive_seed(config.seed, Stream.EVALUATION_EPISODES, parameters.version),
        on_step=on_step,
        recorder=recorder,
    )
    return TestRound(parameters, returns)


class LocalTests:
    """TestRunner that runs each round when it is asked for."""

    def __init__(self, config: RunConfig, spec: AgentSpec, sampler: CircuitSampler | None) -> None:
        self._config, self._spec, self._sampler = config, spec, sampler
        self._finished: list[TestRound] = []

    def request(self, parameters: VersionedParameters) -> Sequence[VersionedParameters]:
        """Run the round now; none is ever left out."""
        self._finished.append(run_test_round(self._config, self._spec, self._sampler, parameters))
        return []

    def collect(self) -> list[TestRound]:
        """Rounds since the last call."""
        finished, self._finished = self._finished, []
        return finished
