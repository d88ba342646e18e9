"""Fakes of what actors talk to; they check everything that they are given."""

import numpy as np

from learner.config import AgentSpec, PolicyConfig
from qpu_service.circuit import CircuitShape
from qpu_service.types import CircuitBatch, MeasurementBatch
from replay.types import InsertReply, ReplayCounts, Segment, TransitionSpec

CIRCUIT = CircuitShape(num_qubits=3, num_layers=2)
POLICY = PolicyConfig(hidden_size=8, num_links=2, circuit=CIRCUIT)
COUNTING = AgentSpec(observation_size=2, action_low=(-2.0, -2.0), action_high=(2.0, 2.0))


def transition_spec(spec: AgentSpec, *, has_circuit: bool = True) -> TransitionSpec:
    return TransitionSpec(
        observation_size=spec.observation_size,
        action_size=spec.action_size,
        circuit_parameters_size=CIRCUIT.num_parameters if has_circuit else 0,
        num_bits=CIRCUIT.num_qubits if has_circuit else 0,
    )


class RecordingWriter:
    """SegmentWriter that keeps what it is given and counts as a replay would."""

    def __init__(self, spec: TransitionSpec, *, inserted: int = 0, policy_version: int = 0) -> None:
        self.spec = spec
        self.segments: list[Segment] = []
        self.inserted = inserted
        self.policy_version = policy_version

    def insert(self, segment: Segment) -> InsertReply:
        return self.insert_many([segment])

    def insert_many(self, segments: list[Segment]) -> InsertReply:
        for segment in segments:
            segment.check(self.spec)
            self.inserted += len(segment)
            self.segments.append(segment)
        return self.poll()

    def poll(self) -> InsertReply:
        return InsertReply(
            is_new=False,
            counts=ReplayCounts(inserted=self.inserted),
            can_insert=True,
            policy_version=self.policy_version,
        )


class RecordingSampler:
    """CircuitSampler whose bits are the lowest bits of the circuits' seeds; ``events`` tells what happened when."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.requests: list[CircuitBatch] = []

    def submit(self, circuits: CircuitBatch) -> "_Pending":
        circuits.validate()
        self.events.append(("submit", circuits.request_id))
        self.requests.append(circuits)
        return _Pending(self, circuits)


class _Pending:
    def __init__(self, sampler: RecordingSampler, circuits: CircuitBatch) -> None:
        self._sampler, self._circuits = sampler, circuits

    def result(self, timeout_s: float | None = None) -> MeasurementBatch:
        self._sampler.events.append(("result", self._circuits.request_id))
        num_qubits = self._circuits.angles.shape[2]
        qubits = np.arange(num_qubits, dtype=np.uint64)
        bits = (self._circuits.seeds[:, None, None] >> qubits) & np.uint64(1)
        return MeasurementBatch(
            bits=bits.astype(np.uint8), request_id=self._circuits.request_id, backend_name="recorded"
        )
