"""What each failure of a device service means, and what is done about it: one table, read from top to bottom.

Nothing here talks to a service: a failure becomes a code, a status and words, and the first rule that fits counts.
Must never import a provider's package: exceptions are recognised by the names of their classes.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Action(Enum):
    """What is done about a failure."""

    RETRY = "retry with backoff"
    WAIT = "wait, then retry"
    NEW_SESSION = "open a new session, then retry"
    OTHER_DEVICE = "use another device"
    FAIL = "fail"


class Blame(Enum):
    """Which kind of error the caller gets when nothing more is tried."""

    SERVICE = "service"
    """Asking again later may help: BackendFailedError."""
    SETUP = "setup"
    """Credentials, device, account: BackendUnavailableError."""
    CIRCUIT = "circuit"
    """The circuits cannot run: InvalidCircuitError."""
    JOB = "job"
    """Running the same again would only be paid again: JobFailedError."""


@dataclass(frozen=True, slots=True)
class Symptom:
    """A failure as the table sees it."""

    text: str
    code: int | None = None
    """IBM's error code, four digits."""
    http_status: int | None = None
    kinds: frozenset[str] = frozenset()
    """Names of the exception's class and of its bases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row: it fits when any of its marks does."""

    name: str
    action: Action
    blame: Blame
    advice: str
    codes: frozenset[int] = frozenset()
    http_statuses: frozenset[int] = frozenset()
    kinds: frozenset[str] = frozenset()
    phrases: tuple[str, ...] = ()
    was_refused: bool = False
    """The service certainly did not take the job; otherwise it is looked up before it is sent again."""
    pause_s: float = 2.0
    """First pause; WAIT keeps it, RETRY doubles it every time."""

    def fits(self, symptom: Symptom) -> bool:
        """Whether this row is about the symptom."""
        text = symptom.text.lower()
        return (
            symptom.code in self.codes
            or symptom.http_status in self.http_statuses
            or bool(self.kinds & symptom.kinds)
            or any(phrase in text for phrase in self.phrases)
        )


def _codes(*parts: int | tuple[int, int]) -> frozenset[int]:
    """Codes and inclusive ranges of codes."""
    found: set[int] = set()
    for part in parts:
        found.update([part] if isinstance(part, int) else range(part[0], part[1] + 1))
    return frozenset(found)


# Codes: https://quantum.cloud.ibm.com/docs/errors, and the fuller list in the documentation of qiskit-ibm-provider.
TABLE: tuple[Rule, ...] = (
    Rule(
        name="wrong token",
        action=Action.FAIL,
        blame=Blame.SETUP,
        advice="check QISKIT_IBM_TOKEN and QISKIT_IBM_INSTANCE",
        codes=_codes(1200, 1201, (2407, 2411), 3400, 3402, 3407, 3440, (3444, 3446), 3452, 3453, 3459, 3460),
        http_statuses=frozenset({401, 403}),
        kinds=frozenset({"IBMNotAuthorizedError", "IBMAccountError", "InvalidAccountError"}),
        was_refused=True,
    ),
    Rule(
        name="session closed",
        action=Action.NEW_SESSION,
        blame=Blame.SERVICE,
        advice="the session ended before its jobs; lower the time between requests or use QPU_MODE=batch",
        codes=_codes(4001),
        phrases=("the session is closed", "session has been closed"),
        was_refused=True,
    ),
    Rule(
        name="job ran too long",
        action=Action.FAIL,
        blame=Blame.JOB,
        advice="raise QPU_BUDGET_SECONDS or send fewer circuits or shots at once",
        codes=_codes(1305, 5201),
        kinds=frozenset({"RuntimeJobMaxTimeoutError"}),
    ),
    Rule(
        name="cancelled",
        action=Action.FAIL,
        blame=Blame.JOB,
        advice="somebody cancelled the job; ask again if that was not meant",
        codes=_codes(5202),
        kinds=frozenset({"JobCancelled"}),
    ),
    Rule(
        name="invalid circuit",
        action=Action.FAIL,
        blame=Blame.CIRCUIT,
        advice="the circuits do not fit the device; report this with the device's name",
        codes=_codes(1002, 1003, (1101, 1109), 3211, 3218, 3220, 3226, 3236, 3237, 3239, (6000, 8044)),
        kinds=frozenset({"IBMInputValueError"}),
        was_refused=True,
    ),
    Rule(
        name="job too large",
        action=Action.FAIL,
        blame=Blame.JOB,
        advice="send fewer circuits or shots at once",
        codes=_codes(1001, 3242, 3243, 3248, 5302),
        http_statuses=frozenset({413}),
        was_refused=True,
    ),
    Rule(
        name="device gone",
        action=Action.OTHER_DEVICE,
        blame=Blame.SETUP,
        advice="set QPU_DEVICE to another device, or unset it to use the least busy one",
        codes=_codes(1004, 1005, 1007, 1009, 2000, 2002, (2615, 2622), 3200, 3245, 3246),
        kinds=frozenset({"QiskitBackendNotFoundError"}),
        was_refused=True,
    ),
    Rule(
        name="too many requests",
        action=Action.RETRY,
        blame=Blame.SERVICE,
        advice="the service limits the rate of requests; use fewer workers",
        codes=_codes(1202, 2402),
        http_statuses=frozenset({429}),
        pause_s=5.0,
        was_refused=True,
    ),
    Rule(
        name="too many jobs",
        action=Action.WAIT,
        blame=Blame.SERVICE,
        advice="other jobs of this account must end first; cancel them or wait",
        codes=_codes(1012, 3458),
        pause_s=30.0,
        was_refused=True,
    ),
    Rule(
        name="maintenance",
        action=Action.WAIT,
        blame=Blame.SERVICE,
        advice="the service is under maintenance; see https://quantum.cloud.ibm.com/announcements",
        codes=_codes(1999),
        http_statuses=frozenset({503}),
        phrases=("maintenance",),
        pause_s=60.0,
    ),
    Rule(
        name="service error",
        action=Action.RETRY,
        blame=Blame.SERVICE,
        advice="the service failed; try again later",
        codes=_codes(1000, 1006, 1008, 1010, 1011, 2400, 2412, 3204, 3208, 3210, 3212, (3233, 3235))
        | _codes(3251, 3253, 3300, 3301, 3704, 5203, 5204, 9999),
        http_statuses=frozenset(range(500, 600)),
        phrases=("error responses",),
    ),
    Rule(
        name="job failed",
        action=Action.FAIL,
        blame=Blame.JOB,
        advice="the device reported a failure that is not known here; look the job up on the service's pages",
        kinds=frozenset({"RuntimeJobFailureError", "JobFailed"}),
    ),
    Rule(
        name="no answer",
        action=Action.RETRY,
        blame=Blame.SERVICE,
        advice="the service did not answer; check the network",
        kinds=frozenset({"TimeoutError", "ConnectionError", "Timeout", "RuntimeJobTimeoutError", "SSLError"}),
        phrases=("timed out", "connection aborted", "connection refused", "max retries exceeded", "name resolution"),
    ),
)

UNKNOWN = Rule(
    name="unknown",
    action=Action.FAIL,
    blame=Blame.SERVICE,
    advice="this failure is not in the table of qpu_service/retry.py",
)
"""What no row knows is never repeated: it might be paid twice."""

_CODE = re.compile(r"error code:?\s*[\"']?(\d{4})|[\"']code[\"']:\s*(\d{4})", re.IGNORECASE)
_HTTP = re.compile(r"\b([45]\d\d) (?:client|server) error", re.IGNORECASE)


def diagnose(symptom: Symptom) -> Rule:
    """First row that fits; codes are looked up before words and classes, because they say more."""
    if symptom.code is not None:
        for rule in TABLE:
            if symptom.code in rule.codes:
                return rule
    return next((rule for rule in TABLE if rule.fits(symptom)), UNKNOWN)


def symptom_of(error: BaseException) -> Symptom:
    """Reduce an exception; the client wraps errors, so its whole chain is read."""
    texts: list[str] = []
    kinds: set[str] = set()
    status: int | None = None
    link: BaseException | None = error
    while link is not None and len(texts) < 10:
        texts.append(str(link))
        kinds.update(cls.__name__ for cls in type(link).__mro__)
        reported = getattr(link, "status_code", None)
        if status is None and isinstance(reported, int) and reported > 0:
            status = reported
        link = link.__cause__ or link.__context__
    return _symptom("\n".join(texts), frozenset(kinds), status)


def symptom_of_job(status: str, message: str) -> Symptom:
    """Reduce a job that ended as ``CANCELLED`` or ``ERROR``."""
    return _symptom(message, frozenset({"JobCancelled" if status == "CANCELLED" else "JobFailed"}), None)


def pause_s(rule: Rule, failures: int, draw: Callable[[], float], longest_s: float = 120.0) -> float:
    """Seconds before the next try.

    Args:
        rule: what happened.
        failures: how often in a row, from 1.
        draw: uniform random number in [0, 1), so that many workers do not come back at once.
        longest_s: bound of a doubled pause.
    """
    if rule.action is Action.WAIT:
        return rule.pause_s
    doubled: float = min(rule.pause_s * 2.0 ** (failures - 1), longest_s)
    return doubled * (0.5 + 0.5 * draw())


def _symptom(text: str, kinds: frozenset[str], status: int | None) -> Symptom:
    code, http = _CODE.search(text), _HTTP.search(text)
    return Symptom(
        text=text,
        code=int(code.group(1) or code.group(2)) if code else None,
        http_status=status if status is not None else int(http.group(1)) if http else None,
        kinds=kinds,
    )
