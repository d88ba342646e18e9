"""One connection to a Redis or Valkey server: explicit timeouts, our own retries, errors that say what to do.

redis-py retries by default, and a retry whose first attempt was executed runs a command twice. Here its retries are
off; ``call`` repeats only what its caller knows to be idempotent. Passwords appear in no message and no log.
"""

import logging
import time
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, TypeVar
from urllib.parse import urlsplit

from replay.errors import (
    CredentialsRefusedError,
    ReplayConfigError,
    ReplayError,
    ReplayFullError,
    ReplayUnreachableError,
)
from replay.server_urls import single_url

logger = logging.getLogger(__name__)
Reply = TypeVar("Reply")

_FIRST_BACKOFF_S = 0.02
_MAX_BACKOFF_S = 1.0
_UNREADABLE = "the server in REDIS_URL"


class RedisSession:
    """A client with a deadline for outages. The client's pool makes calls from several threads safe."""

    def __init__(
        self,
        url: str,
        *,
        deadline_s: float = 60.0,
        socket_timeout_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare a client; nothing is sent yet.

        Args:
            url: ``redis://[user:password@]host:port/db``, ``rediss://…`` or ``unix://…``.
            deadline_s: how long ``call`` keeps trying while the server is away, is loading or is full.
            socket_timeout_s: how long one attempt may take.
            clock: monotonic time, s.
            sleep: waits between attempts.

        Raises:
            ReplayConfigError: if the URL cannot be parsed, or there are several.
        """
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self.label = describe_url(single_url(url))
        self.deadline_s = deadline_s
        self.clock = clock
        self._sleep = sleep
        self._redis = redis
        self.failures: tuple[type[Exception], ...] = (redis.exceptions.RedisError, OSError)
        self.script_missing: type[Exception] = redis.exceptions.NoScriptError
        try:
            self.client: Any = redis.Redis.from_url(
                url,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=socket_timeout_s,
                socket_connect_timeout=socket_timeout_s,
                socket_keepalive=True,
                health_check_interval=30,
                socket_read_size=2**20,
            )
        except ValueError:
            # Without the cause: its text may hold a part of the URL, and so of the password.
            raise ReplayConfigError(
                "the server's URL cannot be read; expected redis://[user:password@]host:port/db, rediss://… or "
                "unix://…, with special characters in the password percent-encoded; check REDIS_URL"
            ) from None

    def attempt(self, action: Callable[[Any], Reply]) -> Reply:
        """One try.

        Raises:
            ReplayUnreachableError: if the server is away, is loading, or refuses the credentials.
            ReplayFullError: if the server is out of memory or disk.
            ReplayError: if the server answers with any other error.
        """
        try:
            return action(self.client)
        except self.failures as error:
            raise self._translated(error) from error

    def call(self, action: Callable[[Any], Reply]) -> Reply:
        """Try until it works or ``deadline_s`` have passed; ``action`` must be idempotent.

        Raises:
            ReplayUnreachableError: at the deadline, or at once where the credentials are refused.
            ReplayFullError: at the deadline.
        """
        started = self.clock()
        backoff_s = _FIRST_BACKOFF_S
        while True:
            try:
                return self.attempt(action)
            except CredentialsRefusedError:
                raise
            except (ReplayUnreachableError, ReplayFullError) as error:
                waited_s = self.clock() - started
                if waited_s + backoff_s > self.deadline_s:
                    raise type(error)(f"{error} (gave up after {waited_s:.1f} s)") from error
                if backoff_s == _FIRST_BACKOFF_S:
                    logger.warning("trying again for up to %.0f s: %s", self.deadline_s, error)
            self._sleep(backoff_s)
            backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)

    def script(self, script: "Script", keys: Sequence[str | bytes], *arguments: object) -> Callable[[Any], Any]:
        """An action for ``attempt`` or ``call`` that runs a script atomically on the server."""

        def run(client: Any) -> Any:
            try:
                return client.evalsha(script.sha, len(keys), *keys, *arguments)
            except self.script_missing:
                # A restarted server has forgotten its scripts; EVAL teaches it again.
                return client.eval(script.text, len(keys), *keys, *arguments)

        return run

    def check_no_eviction(self) -> None:
        """Refuse a server that deletes keys when its memory is full: it would eat the replay silently.

        Raises:
            ReplayConfigError: naming the policy and the command that changes it.
        """
        try:
            memory: dict[str, Any] = self.call(lambda client: client.info("memory"))
        except CredentialsRefusedError:
            if not self.call(lambda client: client.ping()):
                raise
            logger.warning("%s does not let us read its eviction policy; it must be noeviction", self.label)
            return
        policy = memory.get("maxmemory_policy", "unknown")
        if policy != "noeviction":
            raise ReplayConfigError(
                f"the server at {self.label} has maxmemory-policy {policy}, expected noeviction: any other policy "
                "deletes transitions when memory is full; set 'maxmemory-policy noeviction' in its configuration"
            )

    def _translated(self, error: Exception) -> ReplayError:
        """What a server's or the network's error means to a run."""
        errors = self._redis.exceptions
        text = str(error)
        if isinstance(error, errors.AuthenticationError | errors.AuthorizationError | errors.NoPermissionError):
            return CredentialsRefusedError(
                f"{self.label} refuses the credentials ({text}); expected a user that may run scripts on hdqnn:* keys; "
                "check the user and the password in REDIS_URL"
            )
        away = (errors.ConnectionError, errors.TimeoutError, errors.ReadOnlyError, errors.ClusterDownError, OSError)
        if isinstance(error, away):
            return ReplayUnreachableError(
                f"no answer from the replay server at {self.label} ({type(error).__name__}: {text}); "
                "expected a running Redis or Valkey; is it up, and does a firewall allow this host?"
            )
        if isinstance(error, errors.OutOfMemoryError) or "OOM command not allowed" in text:
            return ReplayFullError(
                f"the replay server at {self.label} is out of memory ({text}); expected room for the configured "
                "capacity. Data of other runs may fill it: `hdqnn replay list` shows them, `hdqnn replay drop RUN` "
                "removes those of one. Or raise its maxmemory, or start a run with a smaller replay capacity"
            )
        if text.startswith("MISCONF"):
            return ReplayFullError(
                f"the replay server at {self.label} cannot write its data ({text}); expected a disk with room for "
                "four times the replay; free some"
            )
        return ReplayError(f"the replay server at {self.label} answered with an error ({type(error).__name__}: {text})")

    def close(self) -> None:
        """Close all connections; calling it twice is fine."""
        self.client.close()


class Script:
    """A Lua file of ``replay/scripts`` and the hash by which servers know it."""

    def __init__(self, name: str) -> None:
        import hashlib

        self.text = (resources.files("replay") / "scripts" / f"{name}.lua").read_text()
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


def describe_url(url: str) -> str:
    """The URL without user, password and options, fit for messages."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return _UNREADABLE
    # A password with an unquoted "/" ends up behind the host.
    if "@" in parts.path + parts.query + parts.fragment:
        return _UNREADABLE
    return f"{parts.scheme}://{host}{port}{parts.path}"
