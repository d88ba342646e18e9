"""The faults that one replay, its actors and its learner are put through, and what is counted meanwhile."""

import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np

from benchmarks.faults.stage import Stage
from benchmarks.faults.wire_ledger import SegmentId

_BASELINE_S = 1.0
_MAX_SETTLE_S = 60.0


@dataclass(frozen=True, slots=True)
class Before:
    """What was so before the break."""

    num_acknowledged: int
    num_sampled: int
    incarnations: frozenset[tuple[int, int]]
    """(actor, incarnation) of everybody who ever inserted."""

    @classmethod
    def of(cls, stage: Stage) -> Self:
        """Look now."""
        acknowledged = stage.acknowledged()
        return cls(len(acknowledged), len(stage.sampled()), frozenset(entry.segment[:2] for entry in acknowledged))


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to break the stage."""

    text: str
    """What breaks, for people."""
    cause: Callable[[Stage, int], None]
    """Breaks it for the n-th time, and mends what does not mend itself."""
    has_recovered: Callable[[Stage, Before, float], bool]
    """Whether what broke works again; the last argument is the time at which ``cause`` returned."""


def measure(stage: Stage, fault: Fault, *, repeats: int, window_s: float) -> dict[str, float | str]:
    """Break the stage several times and compare sets of segments.

    Args:
        stage: everything works at the start, and again at the end.
        fault: how to break it.
        repeats: how often.
        window_s: span from each break on over which lost throughput is counted; longer where recovery takes longer.

    Returns:
        ``acknowledged``, ``lost`` (acknowledged, not stored), ``duplicated`` (stored more than once),
        ``unknown`` (sampled, not stored), ``resent`` (inserts that were sent again), ``recovery_p50_s``,
        ``recovery_p95_s`` (from the break to the first success of the part concerned), ``throughput_lost_percent``
        (acknowledged transitions missing over the window, against the rate just before the break).
    """
    first, first_sent = len(stage.acknowledged()), len(stage.ledger.sent())
    recoveries_s, lost_shares = [], []
    for number in range(repeats):
        time.sleep(_BASELINE_S)
        broken_s = time.monotonic()
        rate = _acknowledged_between(stage, broken_s - _BASELINE_S, broken_s) / _BASELINE_S
        is_back = partial(fault.has_recovered, stage, Before.of(stage))
        fault.cause(stage, number)
        stage.wait_until(partial(is_back, time.monotonic()), f"the end of: {fault.text}", _MAX_SETTLE_S)
        recoveries_s.append(time.monotonic() - broken_s)
        time.sleep(max(0.0, broken_s + window_s - time.monotonic()))
        seen_s = max(window_s, recoveries_s[-1])
        made = _acknowledged_between(stage, broken_s, broken_s + seen_s)
        lost_shares.append(1.0 - made / max(rate * seen_s, 1.0))
    acknowledged = {entry.segment for entry in stage.acknowledged(first)}
    sent = Counter(stage.ledger.sent()[first_sent:])
    sampled = set(stage.sampled())  # before what is stored: both grow meanwhile
    return {
        "fault": fault.text,
        "repeats": float(repeats),
        **compare(acknowledged, stage.stored(), sampled, among=set(sent)),
        "resent": float(sum(sent.values()) - len(sent)),
        "recovery_p50_s": float(np.percentile(recoveries_s, 50)),
        "recovery_p95_s": float(np.percentile(recoveries_s, 95)),
        "window_s": window_s,
        "throughput_lost_percent": 100.0 * max(0.0, float(np.mean(lost_shares))),
    }


def measure_emptied(*, repeats: int) -> dict[str, float | str]:
    """A server that comes back without the run's data: nobody goes on as if nothing had happened.

    Returns:
        ``recovery_p50_s`` and ``…_p95_s``: from the loss until the last process had ended with an error that says so;
        ``silent``: processes that did not.
    """
    times_s, silent = [], 0
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as directory, Stage.start(Path(directory)) as stage:
            emptied_s = time.monotonic()
            with contextlib.closing(stage.session()) as session:
                session.call(lambda client: client.flushall())
            for name, process in stage.processes.items():
                process.wait(_MAX_SETTLE_S)
                silent += "ReplayLostError" not in (stage.directory / f"{name}.log").read_text()
            times_s.append(time.monotonic() - emptied_s)
    return {
        "fault": "server back, but empty",
        "repeats": float(repeats),
        "silent": float(silent),
        "recovery_p50_s": float(np.percentile(times_s, 50)),
        "recovery_p95_s": float(np.percentile(times_s, 95)),
    }


def compare(
    acknowledged: set[SegmentId],
    stored: list[SegmentId],
    sampled: set[SegmentId],
    among: set[SegmentId] | None = None,
) -> dict[str, float]:
    """How the three sets of segments differ; see ``measure``. Only duplicates ``among`` these are counted, if given."""
    times = Counter(stored)
    return {
        "acknowledged": float(len(acknowledged)),
        "lost": float(len(acknowledged - times.keys())),
        "duplicated": float(sum(n - 1 for segment, n in times.items() if among is None or segment in among)),
        "unknown": float(len(sampled - times.keys())),
    }


def _acknowledged_between(stage: Stage, start_s: float, end_s: float) -> int:
    return sum(entry.steps for entry in stage.acknowledged() if start_s < entry.at_s <= end_s)


def _all_insert(stage: Stage, before: Before, mended_s: float) -> bool:
    """Every actor had an insert answered since."""
    recent = stage.acknowledged(before.num_acknowledged)
    actors = {entry.segment.actor_id for entry in recent if entry.at_s > mended_s}
    return len(actors) == len(stage.processes.keys() - {"learner"})


def _a_new_incarnation_inserts(stage: Stage, before: Before, _: float) -> bool:
    recent = stage.acknowledged(before.num_acknowledged)
    return any(entry.segment[:2] not in before.incarnations for entry in recent)


def _new_samples(stage: Stage, before: Before, _: float) -> bool:
    """A started learner has read the replay and samples."""
    return len(stage.sampled()) > before.num_sampled


def _kill_actor(stage: Stage, number: int) -> None:
    stage.kill(f"actor {number % 2}")


def _kill_learner(stage: Stage, _: int) -> None:
    stage.kill("learner")


def _kill_server(stage: Stage, _: int) -> None:
    stage.kill_server()


def _cut(stage: Stage, _: int) -> None:
    stage.proxy.cut()


def _half_open(stage: Stage, _: int) -> None:
    stage.proxy.half_open()


def _lose_replies(stage: Stage, _: int) -> None:
    before = stage.proxy.num_lost
    stage.proxy.lose_replies = 4
    stage.wait_until(lambda: stage.proxy.num_lost >= before + 4, "replies to be lost")


def _freeze_server(seconds: float) -> Callable[[Stage, int], None]:
    return lambda stage, _: stage.freeze_server(seconds)


def _fill_disk(seconds: float) -> Callable[[Stage, int], None]:
    return lambda stage, _: stage.fill_disk(seconds)


def _fill_memory(seconds: float) -> Callable[[Stage, int], None]:
    def cause(stage: Stage, _: int) -> None:
        with contextlib.closing(stage.session()) as session:
            session.call(lambda client: client.config_set("maxmemory", 1_000_000))
            time.sleep(seconds)
            session.call(lambda client: client.config_set("maxmemory", 0))

    return cause


def _slow(latency_s: float, seconds: float) -> Callable[[Stage, int], None]:
    """Round trips take ``latency_s`` longer for some time."""

    def cause(stage: Stage, _: int) -> None:
        stage.proxy.latency_s = latency_s / 2
        time.sleep(seconds)
        stage.proxy.latency_s = 0.0

    return cause


def _dark(seconds: float) -> Callable[[Stage, int], None]:
    def cause(stage: Stage, _: int) -> None:
        stage.proxy.is_dark = True
        time.sleep(seconds)
        stage.proxy.is_dark = False

    return cause


def _dark_and_slow(latency_s: float, dark_s: float, period_s: float) -> Callable[[Stage, int], None]:
    """One period of a bad line: slow all the time, dark in its middle."""

    def cause(stage: Stage, number: int) -> None:
        stage.proxy.latency_s = latency_s / 2
        time.sleep((period_s - dark_s) / 2)
        _dark(dark_s)(stage, number)
        time.sleep((period_s - dark_s) / 2)
        stage.proxy.latency_s = 0.0

    return cause


def make_faults(*, dark_s: float = 5.0, period_s: float = 60.0, short_s: float = 2.0) -> dict[str, Fault]:
    """Every fault of a stage by name.

    Args:
        dark_s: length of a blackout.
        period_s: time from one blackout to the next on a bad line.
        short_s: how long a server is frozen or full and a line is slow.
    """
    return {
        "kill-actor": Fault("kill -9 of an actor", _kill_actor, _a_new_incarnation_inserts),
        "kill-learner": Fault("kill -9 of the learner", _kill_learner, _new_samples),
        "kill-server": Fault("kill -9 of the replay server", _kill_server, _all_insert),
        "freeze-server": Fault(f"server frozen for {short_s:g} s", _freeze_server(short_s), _all_insert),
        "disk": Fault(f"server's disk full for {short_s:g} s", _fill_disk(short_s), _all_insert),
        "memory": Fault(f"server out of memory for {short_s:g} s", _fill_memory(short_s), _all_insert),
        "reset": Fault("every connection reset", _cut, _all_insert),
        "half-open": Fault("every connection half-open", _half_open, _all_insert),
        "reply-lost": Fault("4 replies lost after their requests ran", _lose_replies, _all_insert),
        "latency-50": Fault(f"50 ms latency for {short_s:g} s", _slow(0.05, short_s), _all_insert),
        "latency-200": Fault(f"200 ms latency for {short_s:g} s", _slow(0.2, short_s), _all_insert),
        "blackout": Fault(f"network dark for {dark_s:g} s", _dark(dark_s), _all_insert),
        "bad-line": Fault(
            f"200 ms latency, network dark for {dark_s:g} s of each {period_s:g} s",
            _dark_and_slow(0.2, dark_s, period_s),
            _all_insert,
        ),
    }
