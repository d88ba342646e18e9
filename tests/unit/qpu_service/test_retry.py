"""The error table: every row, by every mark that it has, and what the client really raises."""

from pathlib import Path

import pytest
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from qiskit_ibm_runtime.exceptions import (
    IBMInputValueError,
    IBMNotAuthorizedError,
    IBMRuntimeError,
    RuntimeJobFailureError,
    RuntimeJobMaxTimeoutError,
    RuntimeJobTimeoutError,
)

from qpu_service.retry import (
    TABLE,
    UNKNOWN,
    Action,
    Blame,
    Rule,
    Symptom,
    diagnose,
    pause_s,
    symptom_of,
    symptom_of_job,
)

ROWS = {rule.name: rule for rule in TABLE}


def wrapped(status: int, text: str) -> Exception:
    """As the client wraps an HTTP error of a submission: the cause is hidden, its text is not."""
    try:
        try:
            raise RequestsApiError(text, status)
        except RequestsApiError as error:
            raise IBMRuntimeError(f"Failed to run program: {error}") from None
    except IBMRuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("error", "row"),
    [
        (
            IBMNotAuthorizedError("401 Client Error: Unauthorized for url. Login failed, Error code: 3446."),
            "wrong token",
        ),
        (IBMNotAuthorizedError("something about a token"), "wrong token"),
        (RequestsApiError("403 Client Error: Forbidden for url: https://x", 403), "wrong token"),
        (wrapped(400, "400 Client Error. Session has been closed, Error code: 4001."), "session closed"),
        (IBMRuntimeError("The session is closed."), "session closed"),
        (RuntimeJobMaxTimeoutError("Error code 1305; Job reached the maximum execution time"), "job ran too long"),
        (IBMInputValueError("The instruction cx on qubits (0, 9) is not supported."), "invalid circuit"),
        (wrapped(413, "413 Client Error: Request Entity Too Large for url: https://x"), "job too large"),
        (wrapped(404, "404 Client Error. Backend not found., Error code: 1007."), "device gone"),
        (wrapped(429, "429 Client Error: Too Many Requests for url: https://x"), "too many requests"),
        (wrapped(400, "400 Client Error. Too many job requests received, Error code: 1202."), "too many requests"),
        (wrapped(400, "400 Client Error. Maximum limit of concurrent jobs, Error code: 3458."), "too many jobs"),
        (RequestsApiError("Unexpected response. Please check if the service is in maintenance"), "maintenance"),
        (wrapped(500, "500 Server Error: Internal Server Error for url: https://x"), "service error"),
        (RequestsApiError("HTTPSConnectionPool: Max retries exceeded (too many 502 error responses)"), "service error"),
        (RuntimeJobFailureError("Unable to retrieve job result. Job j has failed:\nsomething new"), "job failed"),
        (RequestsApiError("('Connection aborted.', RemoteDisconnected('closed without response'))"), "no answer"),
        (TimeoutError("the service did not answer within 60 s"), "no answer"),
        (RuntimeJobTimeoutError("Timed out waiting for job"), "no answer"),
        (ConnectionResetError("reset by peer"), "no answer"),
    ],
)
def test_what_the_client_raises_is_recognised(error: Exception, row: str) -> None:
    assert diagnose(symptom_of(error)).name == row


EVERY_CODE = [(rule.name, code) for rule in TABLE for code in sorted(rule.codes)]


@pytest.mark.parametrize(("row", "code"), [pair for pair in EVERY_CODE if pair[1] < 6000] + [("invalid circuit", 8044)])
def test_every_code_leads_to_its_row_whatever_the_words(row: str, code: int) -> None:
    assert diagnose(symptom_of(wrapped(500, f"timed out in maintenance, Error code: {code}."))).name == row
    assert diagnose(symptom_of_job("ERROR", f"Job j has failed:\nError code {code}; some words")).name == row


def test_no_code_is_in_two_rows() -> None:
    codes = [code for _, code in EVERY_CODE]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("code", [6000, 6003, 7000, 7006, 8000, 8020, 8044])
def test_permanent_faults_of_a_circuit_are_never_repeated(code: int) -> None:
    rule = diagnose(symptom_of_job("ERROR", f"Error code {code}; too many shots"))
    assert (rule.action, rule.blame) == (Action.FAIL, Blame.CIRCUIT)


def test_cancelled_jobs_are_not_sent_again() -> None:
    rule = diagnose(symptom_of_job("CANCELLED", ""))
    assert (rule.name, rule.action, rule.blame) == ("cancelled", Action.FAIL, Blame.JOB)


def test_a_job_that_ran_too_long_is_no_cancelled_job() -> None:
    assert diagnose(symptom_of_job("CANCELLED", "Error code 1305; ran too long")).name == "job ran too long"


def test_the_unknown_is_never_repeated() -> None:
    assert diagnose(symptom_of(KeyError("surprise"))) is UNKNOWN
    assert UNKNOWN.action is Action.FAIL
    assert not UNKNOWN.was_refused


@pytest.mark.parametrize(
    ("row", "action"),
    [
        ("wrong token", Action.FAIL),
        ("session closed", Action.NEW_SESSION),
        ("job ran too long", Action.FAIL),
        ("cancelled", Action.FAIL),
        ("invalid circuit", Action.FAIL),
        ("job too large", Action.FAIL),
        ("device gone", Action.OTHER_DEVICE),
        ("too many requests", Action.RETRY),
        ("too many jobs", Action.WAIT),
        ("maintenance", Action.WAIT),
        ("service error", Action.RETRY),
        ("job failed", Action.FAIL),
        ("no answer", Action.RETRY),
    ],
)
def test_actions_of_the_table(row: str, action: Action) -> None:
    assert ROWS.pop(row).action is action


def test_every_row_was_looked_at() -> None:
    assert not ROWS


def test_what_may_have_arrived_is_looked_up_before_it_is_sent_again() -> None:
    ambiguous = {rule.name for rule in TABLE if rule.action in (Action.RETRY, Action.WAIT) and not rule.was_refused}
    assert ambiguous == {"maintenance", "service error", "no answer"}


def test_the_documentation_has_every_row_and_says_what_is_done() -> None:
    text = (Path(__file__).parents[3] / "docs" / "ibm.md").read_text()
    rows = {cells[1].strip(): cells for line in text.splitlines() if len(cells := line.split("|")) == 6}
    for rule in (*TABLE, UNKNOWN):
        assert rule.action.value in rows[rule.name][3]
        looked_up = rule.blame in (Blame.SERVICE,) and not rule.was_refused
        assert ("looked up" in rows[rule.name][3]) == looked_up


def test_a_retry_doubles_its_pause_up_to_a_bound_and_spreads_it() -> None:
    rule = Rule(name="r", action=Action.RETRY, blame=Blame.SERVICE, advice="", pause_s=2.0)
    longest, shortest = (lambda: 1.0), (lambda: 0.0)
    assert [pause_s(rule, n, longest) for n in (1, 2, 3, 20)] == [2.0, 4.0, 8.0, 120.0]
    assert pause_s(rule, 3, shortest) == 4.0


def test_a_wait_is_always_as_long() -> None:
    rule = Rule(name="r", action=Action.WAIT, blame=Blame.SERVICE, advice="", pause_s=30.0)
    assert [pause_s(rule, n, lambda: 0.5) for n in (1, 5)] == [30.0, 30.0]


def test_a_chain_of_exceptions_is_read_to_its_end() -> None:
    symptom = symptom_of(wrapped(503, "gone"))
    assert symptom.http_status == 503
    assert {"IBMRuntimeError", "RequestsApiError", "Exception"} <= symptom.kinds
    assert diagnose(Symptom(text="", http_status=503)).name == "maintenance"
