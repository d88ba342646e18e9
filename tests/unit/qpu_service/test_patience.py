"""Who waits how long: for simulators, for devices with queues, and where the configuration says it."""

import pytest

from qpu_service.config import QPUConfig
from qpu_service.errors import BackendUnavailableError
from qpu_service.patience import Patience, patience, with_patience


@pytest.mark.parametrize("backends", [None, "statevector", "statevector,aer"])
def test_simulators_are_given_minutes(backends: str | None) -> None:
    assert patience(QPUConfig(), backends, {}) == Patience(stall_s=120.0, timeout_s=600.0, actor_s=300.0)


@pytest.mark.parametrize("backends", ["ibm", "statevector, ibm"])
@pytest.mark.parametrize(("environment", "deadline_s"), [({}, 3_600.0), ({"QPU_DEADLINE_SECONDS": "86400"}, 86_400.0)])
def test_devices_are_given_their_deadline_and_everybody_outlasts_what_they_wait_for(
    backends: str, environment: dict[str, str], deadline_s: float
) -> None:
    waits = patience(QPUConfig(), backends, environment)
    assert waits.stall_s >= deadline_s + 900 + 60, "a submission may hang and a late job be cancelled"
    assert waits.timeout_s >= 2 * waits.stall_s, "a request may wait for the run before its own"
    assert waits.actor_s > 2 * waits.timeout_s, "an actor waits for two lanes"


def test_what_the_configuration_says_counts() -> None:
    waits = patience(QPUConfig(stall_s=5.0, timeout_s=7_200.0), "statevector", {})
    assert (waits.stall_s, waits.timeout_s) == (5.0, 7_200.0)
    assert waits.actor_s > 2 * 7_200.0
    assert patience(QPUConfig(timeout_s=50.0), "ibm", {}).timeout_s == 50.0
    assert patience(QPUConfig(timeout_s=50.0), "ibm", {}).actor_s == 300.0


@pytest.mark.parametrize("config", [QPUConfig(), QPUConfig(stall_s=5.0), QPUConfig(timeout_s=600.0)])
@pytest.mark.parametrize("backends", ["ibm", "statevector"])
def test_what_is_decided_once_is_the_same_everywhere(config: QPUConfig, backends: str) -> None:
    here = {"QPU_DEADLINE_SECONDS": "86400"}
    decided = with_patience(config, backends, here)
    assert patience(decided, backends, {"QPU_DEADLINE_SECONDS": "soon"}) == patience(config, backends, here)


def test_an_impossible_deadline_is_said() -> None:
    with pytest.raises(BackendUnavailableError, match="QPU_DEADLINE_SECONDS must be a number, got 'soon'"):
        patience(QPUConfig(), "ibm", {"QPU_DEADLINE_SECONDS": "soon"})


@pytest.mark.parametrize("wrong", [{"stall_s": 0.0}, {"timeout_s": -1.0}])
def test_waiting_times_must_be_positive(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be positive"):
        QPUConfig(**wrong)  # type: ignore[arg-type]
