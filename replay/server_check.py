"""A replay server in one line, for people who want to know whether it will do."""

from typing import Any

from replay.redis_session import RedisSession

_NUM_PINGS = 20


def describe_server(url: str, *, deadline_s: float = 5.0) -> str:
    """Product, version, address, memory limit, durability and round trip of a server that a run could use.

    Raises:
        ReplayConfigError: if the URL cannot be read, or the server may evict keys.
        ReplayUnreachableError: if it does not answer in time, or refuses the credentials.
    """
    session = RedisSession(url, deadline_s=deadline_s)
    try:
        session.check_no_eviction()
        info: dict[str, Any] = session.call(lambda client: client.info())
        round_trips_s = []
        for _ in range(_NUM_PINGS):
            started = session.clock()
            session.call(lambda client: client.ping())
            round_trips_s.append(session.clock() - started)
    finally:
        session.close()
    version = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info.get('redis_version')}"
    limit = info.get("maxmemory", 0)
    memory = f"{limit / 1e9:.1f} GB at most" if limit else "no memory limit"
    durability = (
        "append-only file on"
        if info.get("aof_enabled")
        else "append-only file OFF: a restart of the server loses the replay (set 'appendonly yes')"
    )
    round_trip_ms = 1e3 * min(round_trips_s)
    return f"{version} at {session.label}, noeviction, {memory}, {durability}, round trip {round_trip_ms:.2f} ms"
