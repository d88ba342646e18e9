"""Keeps the token out of logs and messages, whoever writes them.

Records are cleaned where they are made, so every logger and every handler of the process is covered, also those that
are added later. The client's loggers are kept above DEBUG, where they write requests.
"""

import logging
import traceback
from collections.abc import Callable

_HIDDEN = "[secret]"
_CHATTY = ("qiskit_ibm_runtime", "ibm-cloud-sdk-core", "ibm_cloud_sdk_core", "ibm_platform_services", "urllib3")
_secrets: set[str] = set()
_SHORTEST = 8
"""Shorter strings would be found in innocent words."""


def protect(secret: str) -> None:
    """Hide a secret in every log record from now on; protecting it again changes nothing."""
    if len(secret) >= _SHORTEST:
        _secrets.add(secret)
    current = logging.getLogRecordFactory()
    if not getattr(current, "hides_secrets", False):
        logging.setLogRecordFactory(_hiding(current))
    for name in _CHATTY:
        chatty = logging.getLogger(name)
        chatty.setLevel(max(chatty.getEffectiveLevel(), logging.INFO))


def redact(text: str) -> str:
    """The text without any protected secret."""
    for secret in _secrets:
        text = text.replace(secret, _HIDDEN)
    return text


def is_clean(error: BaseException) -> bool:
    """Whether no message in an exception's chain holds a secret."""
    text = "".join(traceback.format_exception(error))
    return not any(secret in text for secret in _secrets)


def _hiding(make: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    def make_clean(*args: object, **kwargs: object) -> logging.LogRecord:
        record = make(*args, **kwargs)
        try:
            message = record.getMessage()
        except Exception:  # arguments that do not fit their text: the handler reports that, as it always does
            return record
        if redact(message) != message:
            record.msg, record.args = redact(message), None
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not is_clean(error):
            record.exc_text = redact("".join(traceback.format_exception(error)))
            record.exc_info = None
        return record

    make_clean.hides_secrets = True  # type: ignore[attr-defined]
    return make_clean
