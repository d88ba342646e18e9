"""The data set of one run on a server: its keys, its identity and its counters.

Keys, all with the run as hash tag so that a cluster keeps them together:

- ``hdqnn:{run}:meta``          hash: format version, schema, dataset id, capacity
- ``hdqnn:{run}:counters``      hash: inserted, sampled, policy version, ring indices, what is held
- ``hdqnn:{run}:sequences``     hash: ``actor:incarnation`` to its last stored sequence
- ``hdqnn:{run}:incarnations``  hash: actor to its number of starts
- ``hdqnn:{run}:lengths``       list: ``steps bytes`` of every segment held, oldest first
- ``hdqnn:{run}:segment:<i>``   string: the frame of segment i
- ``hdqnn:{run}:staged:<n>``    string: a frame inside an insert's transaction; outside of one there is none
- ``hdqnn:{run}:learner``       string: who learns, for as long as it lives (``learner_lease.py``)
- ``hdqnn:{run}:learners``      hash: what each learner without a mirror has sampled (``redis_sampler.py``)
- ``hdqnn:{run}:meta:fence``    string: written to wait for the disk (``confirmed_writer.py``)
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from replay.codec import CRC_END, CRC_START, FORMAT_VERSION
from replay.errors import ReplayConfigError, ReplayLostError
from replay.redis_session import RedisSession, Script
from replay.types import ReplayCounts, TransitionSpec

KEY_PREFIX = "hdqnn:"
STATUS_LOST = 3
"""What the scripts return when another data set, or none, is on the server."""


def key_of(run_id: str, name: str) -> str:
    """The key of this name among those of a run."""
    return f"{KEY_PREFIX}{{{run_id}}}:{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RingState:
    """The counters of a data set at one moment."""

    counts: ReplayCounts
    policy_version: int
    next_index: int
    """Index of the segment that comes next."""
    oldest_index: int
    """Index of the oldest segment held."""
    held_bytes: int
    mark: bytes
    """crc32 field of the segment that was asked about; empty where it is not held."""


class RedisDataset:
    """Opened data set; knows when the server holds another one."""

    def __init__(
        self,
        session: RedisSession,
        run_id: str,
        spec: TransitionSpec,
        *,
        capacity: int,
        capacity_bytes: int = 0,
        dataset_id: str | None = None,
    ) -> None:
        """Open the run's data set; the first to come creates it.

        Args:
            session: where.
            run_id: which run.
            spec: sizes of a transition.
            capacity: transitions held.
            capacity_bytes: bytes of frames held, 0 for no such limit.
            dataset_id: the data set expected, from an earlier connection or a checkpoint; None takes what is there.

        Raises:
            ReplayConfigError: if the run exists with other sizes, format or capacity, or the server evicts keys.
            ReplayLostError: if the server holds another data set than ``dataset_id``.
            ReplayUnreachableError: if the server stays away.
        """
        if not run_id or any(character in run_id for character in "{}"):
            raise ReplayConfigError(f"run_id must be a name without braces, got {run_id!r}")
        if capacity < 1 or capacity_bytes < 0:
            raise ReplayConfigError(f"capacity must be above 0, got {capacity} transitions, {capacity_bytes} bytes")
        self.session = session
        self.run_id = run_id
        self.spec = spec
        self.meta_key, self.counters_key, self.sequences_key, self.incarnations_key, self.lengths_key = (
            key_of(run_id, name) for name in ("meta", "counters", "sequences", "incarnations", "lengths")
        )
        self.segment_prefix = key_of(run_id, "segment:")
        self.staging_prefix = key_of(run_id, "staged:")
        self._counters_script = Script("counters")
        session.check_no_eviction()
        self.dataset_id = self._open(capacity, capacity_bytes, dataset_id)

    def read(
        self, *, sampled: int | None = None, policy_version: int | None = None, marked_index: int | None = None
    ) -> Callable[[Any], RingState]:
        """An action for the session: sets what is given, then reads the counters and the mark of a segment."""
        run = self.session.script(
            self._counters_script,
            (self.meta_key, self.counters_key),
            self.dataset_id,
            "" if sampled is None else sampled,
            "" if policy_version is None else policy_version,
            "" if marked_index is None else f"{self.segment_prefix}{marked_index}",
            CRC_START,
            CRC_END - 1,
        )

        def action(client: Any) -> RingState:
            status, inserted, taken, version, next_index, oldest_index, held_bytes, mark = run(client)
            self.check_status(status)
            return RingState(
                counts=ReplayCounts(inserted=inserted, sampled=taken),
                policy_version=version,
                next_index=next_index,
                oldest_index=oldest_index,
                held_bytes=held_bytes,
                mark=mark,
            )

        return action

    def register_actor(self, actor_id: int) -> int:
        """Start of an actor: its incarnation, from 1; a number may be skipped when a reply is lost."""
        return int(self.session.call(lambda client: client.hincrby(self.incarnations_key, str(actor_id), 1)))

    def check_status(self, status: int) -> None:
        """Raise ReplayLostError where a script found another data set, or none."""
        if status == STATUS_LOST:
            raise ReplayLostError(
                f"the replay server at {self.session.label} no longer holds the data of run {self.run_id!r} "
                f"(data set {self.dataset_id}); they were dropped (`hdqnn replay drop`), or it was emptied, or "
                "restarted without its append-only file; bring its data back and resume from a checkpoint, or start a "
                "new run"
            )

    def _open(self, capacity: int, capacity_bytes: int, dataset_id: str | None) -> str:
        schema = (
            f"observation={self.spec.observation_size} action={self.spec.action_size} "
            f"circuit_parameters={self.spec.circuit_parameters_size} bits={self.spec.num_bits}"
        )
        own = {
            "format version": str(FORMAT_VERSION),
            "transition sizes": schema,
            "capacity": str(capacity),
            "capacity in bytes": str(capacity_bytes),
        }
        script = self.session.script(
            Script("open"),
            (self.meta_key,),
            FORMAT_VERSION,
            schema,
            # A set that is only expected must not be created.
            secrets.token_hex(8) if dataset_id is None else "",
            capacity,
            capacity_bytes,
        )
        version, held_schema, held_id, *held_capacities = (
            (value or b"").decode() for value in self.session.call(script)
        )
        held = dict(zip(own, (version, held_schema, *held_capacities), strict=True))
        if dataset_id is not None and held_id != dataset_id:
            self.dataset_id = dataset_id
            self.check_status(STATUS_LOST)
        for name, expected in own.items():
            if held[name] != expected:
                raise ReplayConfigError(
                    f"run {self.run_id!r} exists at {self.session.label} with {name} {held[name]!r}, this program has "
                    f"{expected!r}; use the settings that the run was started with, or another run name"
                )
        return held_id
