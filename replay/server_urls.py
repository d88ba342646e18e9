"""One server or several in one setting: ``redis://a:6379,redis://b:6379``."""

import re

from replay.errors import ReplayConfigError

# Only before a scheme: a password may hold a comma.
_SEPARATOR = re.compile(r",\s*(?=(?:redis|rediss|unix)://)")


def server_urls(text: str) -> list[str]:
    """The URLs in ``REDIS_URL``, in their order; none where it is empty."""
    return _SEPARATOR.split(text) if text else []


def single_url(text: str) -> str:
    """The URL, for what works with one server alone.

    Raises:
        ReplayConfigError: if there are several.
    """
    urls = server_urls(text)
    if len(urls) > 1:
        raise ReplayConfigError(
            f"this part of the replay (sampling on the server, `RedisReplay`, `RedisWriter`) works with one server, "
            f"got {len(urls)} URLs; several are for a learner with a mirror (`replay.opening`); "
            "name one server in REDIS_URL"
        )
    return text


def check_number(dataset_id: str | None, num_servers: int) -> None:
    """Refuse to go on with more or fewer servers: an actor's segments are looked for where they were.

    Args:
        dataset_id: identities of the data on the servers, from a checkpoint; None for a new run.
        num_servers: in ``REDIS_URL``.

    Raises:
        ReplayConfigError: with both numbers.
    """
    if dataset_id is not None and (expected := len(dataset_id.split(","))) != num_servers:
        raise ReplayConfigError(
            f"the run keeps its data on {expected} server(s), REDIS_URL names {num_servers}; set it as it was when the "
            "run was started, in the same order"
        )


def capacity_parts(num_servers: int, capacity: int, capacity_bytes: int) -> tuple[int, int]:
    """Each server's part of both capacities; a limit in bytes that rounds to 0 would be no limit."""
    return capacity // num_servers, max(1, capacity_bytes // num_servers) if capacity_bytes else 0
