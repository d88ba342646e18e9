"""What errors look like at the terminal."""

import pytest

from actors.errors import InvalidEnvironmentError, UnsupportedEnvironmentError
from cluster.errors import CheckpointError, ClusterUnreachableError, ConfigError, RunFailedError
from cluster.failures import report_failure
from learner.errors import LearnerDivergedError, StateMismatchError
from qpu_service.errors import BackendUnavailableError, InvalidCircuitError, UnknownBackendError
from replay.errors import CredentialsRefusedError, ReplayConfigError, ReplayUnreachableError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError, 2),
        (CheckpointError, 2),
        (ClusterUnreachableError, 2),
        (UnsupportedEnvironmentError, 2),
        (InvalidEnvironmentError, 2),
        (UnknownBackendError, 2),
        (BackendUnavailableError, 2),
        (InvalidCircuitError, 2),
        (StateMismatchError, 2),
        (ReplayConfigError, 2),
        (ReplayUnreachableError, 2),
        (CredentialsRefusedError, 2),
        (RunFailedError, 1),
        (LearnerDivergedError, 1),
        (TimeoutError, 1),
        (FileNotFoundError, 1),
        (OSError, 1),
    ],
)
def test_errors_that_people_can_mend_are_one_message(capsys, error, code):
    assert report_failure(error("what is wrong; what to do")) == code
    captured = capsys.readouterr()
    assert captured.err == "hdqnn: what is wrong; what to do\n"
    assert captured.out == ""


@pytest.mark.parametrize("error", [KeyError, ValueError, TypeError, AttributeError, RuntimeError])
def test_errors_that_are_bugs_keep_their_traceback(capsys, error):
    def fail():
        raise error("unexpected")

    with pytest.raises(error) as raised:
        fail()
    assert report_failure(raised.value) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "in fail" in "".join(lines)
    assert lines[-1].startswith(f"hdqnn: failed while running: {error.__name__}: ")
