"""How long anybody waits for a QPU: simulators answer in seconds, a device's queue may take hours.

Decided here for worker watchers, policies and actor watchers together, because each must outlast the one before it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from qpu_service.config import QPUConfig
from qpu_service.ibm.config import config_from_environment

_STALL_S = 120.0
_TIMEOUT_S = 600.0
_ACTOR_S = 300.0
_PAST_DEADLINE_S = 1_200.0
"""What an IBM request may take beyond its deadline: a submission that hangs (900 s), a job that is cancelled (60 s),
repeated questions."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds; each is longer than what it waits for."""

    stall_s: float
    """One run of a QPU worker, or its silence; then it is replaced."""
    timeout_s: float
    """A policy's wait for its bits, the run before its own included."""
    actor_s: float
    """An actor's silence; then it is replaced."""


def patience(config: QPUConfig, backends: str | None, environment: Mapping[str, str] = os.environ) -> Patience:
    """What the configuration says, and where it leaves it open what the slowest backend needs.

    Args:
        config: ``stall_s`` and ``timeout_s`` count where they are set.
        backends: comma-separated names; None where no circuit runs.
        environment: has QPU_DEADLINE_SECONDS, the longest time of one IBM request; not read where nothing is open.

    Raises:
        BackendUnavailableError: if a setting of the ibm backend is impossible.
    """
    stall_s, timeout_s, actor_s = _STALL_S, _TIMEOUT_S, _ACTOR_S
    is_open = config.stall_s is None or config.timeout_s is None
    if is_open and "ibm" in [name.strip() for name in (backends or "").split(",")]:
        stall_s = config_from_environment(None, environment).deadline_s + _PAST_DEADLINE_S
        timeout_s = 2 * stall_s
    if config.timeout_s is not None:
        timeout_s = config.timeout_s
    if timeout_s != _TIMEOUT_S:
        actor_s = max(actor_s, 2 * timeout_s + 60.0)  # an actor's call may wait for the bits of both of its lanes
    return Patience(config.stall_s if config.stall_s is not None else stall_s, timeout_s, actor_s)


def with_patience(config: QPUConfig, backends: str | None, environment: Mapping[str, str] = os.environ) -> QPUConfig:
    """The same settings with nothing left open, for processes whose environment is not that of the run.

    Args and Raises: as of ``patience``, which gives the same for the result, in any environment.
    """
    waits = patience(config, backends, environment)
    return replace(config, stall_s=waits.stall_s, timeout_s=waits.timeout_s)
