"""Load of the QPU workers and state of paid devices, as metrics and as words for the progress line."""

from collections.abc import Mapping, Sequence

from cluster.progress import format_duration
from qpu_service.device_health import DeviceHealth


def load_note(row: Mapping[str, float]) -> str:
    """Circuits, batches, queue and errors of a row of metrics in words; empty where the row has none."""
    if "qpu/circuits_per_s" not in row:
        return ""
    circuits, shots = row["qpu/circuits_per_s"], row["qpu/shots_per_s"]
    words = f"{circuits:,.0f} circuits/s in runs of {row['qpu/batch_circuits']:.0f}"
    if round(shots) != round(circuits):
        words += f", {shots:,.0f} shots/s"
    words += f" (queue {row['qpu/queue_ms']:.1f} ms, run {row['qpu/run_ms']:.1f} ms)"
    if row["qpu/queued_circuits"]:
        words += f", {row['qpu/queued_circuits']:,.0f} waiting"
    if row["qpu/errors"]:
        words += f", {row['qpu/errors']:,.0f} errors"
    return words


def health_row(health: Sequence[DeviceHealth]) -> dict[str, float]:
    """Values for a row of metrics, over all workers with a device service; empty where there is none."""
    if not health:
        return {}
    row = {
        "qpu/breaker_open": float(sum(one.paused_s > 0 for one in health)),
        "qpu/failures_in_a_row": float(max(one.failures_in_a_row for one in health)),
        "qpu/paused_s": max(one.paused_s for one in health),
        "qpu/devices_given_up": float(sum(one.devices_given_up for one in health)),
    }
    left_s, left_jobs = _budget_left(health)
    if left_s is not None:
        row["qpu/budget_left_s"] = left_s
    if left_jobs is not None:
        row["qpu/budget_left_jobs"] = float(left_jobs)
    return row


def health_note(health: Sequence[DeviceHealth]) -> str:
    """The same for a person, as short as it goes; empty where there is nothing to say."""
    parts = []
    left_s, left_jobs = _budget_left(health)
    left = [f"{left_s:,.0f} s"] if left_s is not None else []
    left += [f"{left_jobs:,} jobs"] if left_jobs is not None else []
    if left:
        parts.append(f"QPU budget left: {', '.join(left)}")
    failures = max((one.failures_in_a_row for one in health), default=0)
    paused_s = max((one.paused_s for one in health), default=0.0)
    if failures:
        times = "once" if failures == 1 else f"{failures} times"
        again = f", next try in {format_duration(paused_s)}" if paused_s > 0 else ""
        parts.append(f"QPU service failed {times}{again}")
    given_up = sum(one.devices_given_up for one in health)
    if given_up:
        parts.append(f"QPU devices given up: {given_up}")
    return " | ".join(parts)


def _budget_left(health: Sequence[DeviceHealth]) -> tuple[float | None, int | None]:
    """Least of what workers have left; those of one journal share one budget."""
    seconds = [one.budget_left_s for one in health if one.budget_left_s is not None]
    jobs = [one.budget_left_jobs for one in health if one.budget_left_jobs is not None]
    return min(seconds, default=None), min(jobs, default=None)
