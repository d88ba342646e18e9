"""Journal of paid jobs: what was going to be sent, what was sent, how it ended. Written before anything is waited for.

One JSON object per line, each flushed to the disk before the next step is taken. Several workers append to one file,
so a request that moves to another worker finds the job that was already sent for it. Circuits are known by digests that
hold their angles, pairs, seed and shots; a circuit's digest and its device are its idempotency key. Must never hold a
token.

Only one worker at a time can intend a circuit, and while it submits it holds a lock that dies with its process: whoever
finds an intended job without an id knows whether somebody still works on it.
"""

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from qpu_service.submission_locks import SubmissionLocks
from qpu_service.types import CircuitBatch

logger = logging.getLogger(__name__)

JobState = Literal["intended", "submitted", "done", "failed"]
"""``intended``: it may or may not have reached the service. ``failed``: nobody will ask this job for bits again."""


class AlreadyIntendedError(Exception):
    """Another worker was faster with one of these circuits; its job is in the journal now."""


_REMEMBERED = 1_000
"""Ended jobs whose circuits are still recognised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEntry:
    """One job as the journal knows it."""

    tag: str
    """Names the job at the service; another attempt at the same circuits has another tag."""
    device: str
    digests: tuple[str, ...] = field(repr=False)
    """Circuits of the job, in its order."""
    state: JobState = "intended"
    job_id: str | None = None
    session_id: str | None = None
    usage_s: float | None = None
    """Seconds that the service charged; None while unknown."""
    readout_errors: tuple[tuple[float, ...], ...] | None = field(default=None, repr=False)
    """Of each qubit of each circuit, as the device reported them when the job was sent; None where nobody asked."""


class JobJournal:
    """Append-only journal in a directory that outlives the process.

    Args:
        directory: created if missing; all workers of a run share it.
        new_id: makes the run's id if the journal is new.
        now: date for people who read the file; nothing depends on it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        new_id: Callable[[], str] = lambda: uuid4().hex[:12],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / "jobs.jsonl"
        self._now = now
        self._offset = 0
        self._jobs: dict[str, JobEntry] = {}
        self._by_digest: dict[str, dict[str, tuple[str, int]]] = {}
        """Tag and place by digest and device."""
        self._ended: dict[str, None] = {}
        """Tags in the order in which their jobs ended."""
        self._submissions = SubmissionLocks(directory / "submitting")
        self._file = self._path.open("ab", buffering=0)
        self.run_id = ""
        self.refresh()
        if not self.run_id:
            with self._writing():
                self.refresh()  # another worker may have been faster
                if not self.run_id:
                    self._write({"event": "run", "run_id": new_id()})
            _sync_directory(directory)
            self.refresh()

    def refresh(self) -> None:
        """Read what this and other workers have appended."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            *lines, _unfinished = file.read().split(b"\n")
        for line in lines:
            self._offset += len(line) + 1
            if line:
                self._read(line)
        self._forget()

    def intend(
        self,
        digests: Sequence[str],
        device: str,
        devices: Collection[str] | None = None,
        readout_errors: Sequence[Sequence[float]] | None = None,
    ) -> JobEntry:
        """Note a job that this worker is about to send; ``end_submission`` must follow, whatever comes of it.

        Args:
            digests: its circuits.
            device: where it is sent.
            devices: as of ``find``.
            readout_errors: as of ``JobEntry``.

        Returns:
            Its entry, with a tag of its own.

        Raises:
            AlreadyIntendedError: if a job for one of the circuits is in the journal; nothing is noted then.
        """
        base = hashlib.sha256("".join([device, *digests]).encode()).hexdigest()[:16]
        with self._writing():
            self.refresh()
            if any(self.find(digest, devices) for digest in digests):
                raise AlreadyIntendedError(f"a job of another worker measures some of these {len(digests)} circuits")
            attempt = 1 + sum(tag.rpartition("-")[0] == base for tag in self._jobs)
            tag = f"{base}-{attempt}"
            self._submissions.hold(tag)  # before anybody can read about it
            record = {"event": "intended", "tag": tag, "device": device, "digests": list(digests)}
            self._write(record if readout_errors is None else {**record, "readout_errors": readout_errors})
        self.refresh()
        return self._jobs[tag]

    def end_submission(self, tag: str) -> None:
        """Say that this worker does not submit the job any more; calling it twice is fine."""
        self._submissions.release(tag)

    def is_being_submitted(self, tag: str) -> bool:
        """Whether a worker that is alive has begun to submit this job and has not ended."""
        return self._submissions.is_held(tag)

    def submitted(self, tag: str, job_id: str, session_id: str | None) -> JobEntry:
        """Note the id under which the service knows the job."""
        return self._note(tag, {"event": "submitted", "job_id": job_id, "session_id": session_id})

    def done(self, tag: str, usage_s: float | None) -> JobEntry:
        """Note that the bits were read; they can be read again."""
        return self._note(tag, {"event": "done", "usage_s": usage_s})

    def failed(self, tag: str, reason: str) -> JobEntry:
        """Note that this job gives no bits, or was never sent."""
        return self._note(tag, {"event": "failed", "reason": reason[:500]})

    def find(self, digest: str, devices: Collection[str] | None = None) -> tuple[JobEntry, int] | None:
        """The job that measures this circuit, and the circuit's place in it.

        Args:
            digest: the circuit.
            devices: those whose bits will do; None: any device's, the first that was asked.
        """
        for device, (tag, row) in self._by_digest.get(digest, {}).items():
            if devices is None or device in devices:
                return self._jobs[tag], row
        return None

    def entry(self, tag: str) -> JobEntry | None:
        """The job with this tag."""
        return self._jobs.get(tag)

    @property
    def jobs(self) -> list[JobEntry]:
        """Every job that is remembered, oldest first."""
        return list(self._jobs.values())

    def close(self) -> None:
        """Close the files; calling it twice is fine."""
        self._submissions.close()
        self._file.close()

    def _note(self, tag: str, record: dict[str, Any]) -> JobEntry:
        with self._writing():
            self._write({**record, "tag": tag})
        self.refresh()
        return self._jobs[tag]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """While no other worker writes."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _write(self, record: dict[str, Any]) -> None:
        line = json.dumps({**record, "at": self._now().isoformat(timespec="seconds")}).encode() + b"\n"
        size = os.fstat(self._file.fileno()).st_size
        # A process that died while writing leaves half a line, which must not swallow this one.
        self._file.write(line if self._ends_with_newline(size) else b"\n" + line)
        os.fsync(self._file.fileno())

    def _ends_with_newline(self, size: int) -> bool:
        if size == 0:
            return True
        with self._path.open("rb") as file:
            file.seek(size - 1)
            return file.read(1) == b"\n"

    def _read(self, line: bytes) -> None:
        try:
            record: dict[str, Any] = json.loads(line)
            self._apply(record["event"], record)
        except (ValueError, KeyError, TypeError):
            logger.warning("%s has a damaged line, which is skipped: %.80r", self._path, line)

    def _apply(self, event: str, record: dict[str, Any]) -> None:
        if event == "run":
            self.run_id = self.run_id or str(record["run_id"])
        elif event == "intended":
            digests = tuple(record["digests"])
            errors = record.get("readout_errors")
            self._jobs[record["tag"]] = JobEntry(
                tag=record["tag"],
                device=record["device"],
                digests=digests,
                readout_errors=None if errors is None else tuple(map(tuple, errors)),
            )
            for row, digest in enumerate(digests):
                self._by_digest.setdefault(digest, {})[record["device"]] = (record["tag"], row)
        elif event == "submitted":
            self._update(record["tag"], state=event, job_id=record["job_id"], session_id=record["session_id"])
            self._ended.pop(record["tag"], None)
        elif event == "done":
            self._update(record["tag"], state=event, usage_s=record["usage_s"])
            self._ended.setdefault(record["tag"])
        elif event == "failed":
            self._update(record["tag"], state=event)
            self._release(record["tag"])
            self._ended.setdefault(record["tag"])

    def _update(self, tag: str, **changes: Any) -> None:
        self._jobs[tag] = replace(self._jobs[tag], **changes)

    def _release(self, tag: str) -> None:
        job = self._jobs[tag]
        for digest in job.digests:
            tags = self._by_digest.get(digest, {})
            if tags.get(job.device, ("", 0))[0] == tag:
                del tags[job.device]
                if not tags:
                    del self._by_digest[digest]

    def _forget(self) -> None:
        for tag in list(self._ended)[: max(0, len(self._ended) - _REMEMBERED)]:
            self._release(tag)
            del self._jobs[tag], self._ended[tag]


def circuit_digests(circuits: CircuitBatch) -> list[str]:
    """What tells circuits apart on a device: 128 bits of a hash of its angles, pairs, seed and the number of shots."""
    shape = repr((circuits.angles.shape[1:], circuits.shots)).encode()
    angles, pairs = circuits.angles.astype("<f4", copy=False), circuits.entangler_pairs.astype("<i2", copy=False)
    return [
        hashlib.blake2b(
            shape + angles[row].tobytes() + pairs[row].tobytes() + int(circuits.seeds[row]).to_bytes(8, "little"),
            digest_size=16,
        ).hexdigest()
        for row in range(len(circuits))
    ]


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
