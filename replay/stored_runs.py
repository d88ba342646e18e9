"""What runs keep on a server, and how the data of one are dropped: nothing else ever removes those of an ended run.

Everything is found by SCAN, in pieces between which the server answers others. Nothing here makes the server look at a
segment as if it were used, so that a person can see which runs nobody works with any more.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from replay.errors import ReplayConfigError, ReplayError
from replay.redis_dataset import KEY_PREFIX, key_of
from replay.redis_session import RedisSession, Script

_KEYS_PER_CALL = 1_000
_RUN_OF_KEY = re.compile(rb"%b\{([^{}]+)\}:" % KEY_PREFIX.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """The data of one run on one server."""

    run_id: str
    """Name of its directory and a random suffix; the file ``run_id`` in the directory holds it."""
    num_keys: int
    num_bytes: int
    """Memory that they take."""
    num_transitions: int
    """Held now."""
    unused_s: int | None
    """Since the newest segment was written or read, at least: a restart of the server counts as a use. None where
    there is no segment, or the server does not tell."""
    learner: str
    """Who learns from it now; empty for nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerContents:
    """Everything that runs keep on one server."""

    label: str
    """Address without user and password."""
    used_bytes: int
    limit_bytes: int
    """Its ``maxmemory``; 0 for none."""
    runs: tuple[StoredRun, ...]
    """Largest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """What was removed from one server."""

    num_keys: int
    num_bytes: int


def read_contents(session: RedisSession) -> ServerContents:
    """Which runs a server holds; changes nothing.

    Raises:
        ReplayUnreachableError: if the server stays away, or refuses the credentials.
    """
    num_keys, num_bytes = Counter[str](), Counter[str]()
    seen = set[bytes]()
    for page in _scan(session, f"{KEY_PREFIX}{{*}}:*"):
        keys = [key for key in page if key not in seen]
        seen.update(keys)
        for key, size in zip(keys, session.call(partial(_sizes, keys=keys)), strict=True):
            run_id = _run_of(key)
            # Without a size where it went meanwhile.
            if run_id is not None and size is not None:
                num_keys[run_id] += 1
                num_bytes[run_id] += size
    info: dict[str, Any] = session.call(lambda client: client.info("memory"))
    runs = (
        _describe(session, run_id, num_keys=num_keys[run_id], num_bytes=num_bytes[run_id])
        for run_id, _ in num_bytes.most_common()
    )
    return ServerContents(
        label=session.label, used_bytes=info["used_memory"], limit_bytes=info.get("maxmemory", 0), runs=tuple(runs)
    )


def drop_run(session: RedisSession, run_id: str) -> Dropped:
    """Remove all data of a run from a server; those of other runs stay. One that is cut short can be repeated.

    Raises:
        ReplayConfigError: if a learner holds the run's lease, or takes it meanwhile.
        ReplayUnreachableError: if the server stays away, or refuses the credentials.
    """
    script = Script("drop")
    num_keys = num_bytes = 0
    for keys in _own_keys(session, key_of(run_id, "")):
        holder, count, size = session.call(session.script(script, (key_of(run_id, "learner"), *keys)))
        if holder:
            raise held_error(run_id, session.label, holder.decode(errors="replace"))
        num_keys, num_bytes = num_keys + count, num_bytes + size
    return Dropped(num_keys=num_keys, num_bytes=num_bytes)


def held_error(run_id: str, label: str, learner: str) -> ReplayConfigError:
    """Why the data of a run that is learned from are not dropped."""
    return ReplayConfigError(
        f"a learner works with the data of run {run_id!r} at {label}: {learner}; expected none. Stop it first (Ctrl-C "
        "where it runs, `python -m cluster.submit CLUSTER --stop ID` on a cluster); one that was killed counts for "
        "another 30 s"
    )


def _run_of(key: bytes) -> str | None:
    """Whose key this is; None for what no run of ours has written."""
    found = _RUN_OF_KEY.match(key)
    try:
        return None if found is None else found[1].decode()
    except UnicodeDecodeError:
        return None


def _own_keys(session: RedisSession, prefix: str) -> Iterator[Sequence[bytes]]:
    """All keys of a run in pieces, its identity first: who comes back in the middle of a drop finds it gone."""
    start = prefix.encode()
    yield (start + b"meta",)
    # A name may hold what SCAN takes for a pattern.
    pattern = re.sub(r"([\\*?\[\]])", r"\\\1", prefix) + "*"
    for page in _scan(session, pattern):
        if keys := [key for key in page if key.startswith(start)]:
            yield keys


def _scan(session: RedisSession, pattern: str) -> Iterator[list[bytes]]:
    cursor = 0
    while True:
        cursor, keys = session.call(partial(_scan_once, cursor=cursor, pattern=pattern))
        if keys:
            yield keys
        if cursor == 0:
            return


def _scan_once(client: Any, *, cursor: int, pattern: str) -> tuple[int, list[bytes]]:
    next_cursor, keys = client.scan(cursor, match=pattern, count=_KEYS_PER_CALL)
    return int(next_cursor), keys


def _sizes(client: Any, *, keys: Sequence[bytes]) -> list[int | None]:
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.memory_usage(key)
        return list(pipeline.execute())


def _describe(session: RedisSession, run_id: str, *, num_keys: int, num_bytes: int) -> StoredRun:
    def read(client: Any) -> tuple[list[bytes | None], bytes]:
        with client.pipeline(transaction=False) as pipeline:
            pipeline.hmget(key_of(run_id, "counters"), "held_transitions", "next_index")
            pipeline.getrange(key_of(run_id, "learner"), 0, -1)
            held, learner = pipeline.execute()
            return held, learner

    (num_transitions, next_index), learner = session.call(read)
    unused_s: int | None = None
    newest = key_of(run_id, f"segment:{int(next_index or 0) - 1}")
    # A user may lack this right, and a server that evicts by frequency does not know.
    with suppress(ReplayError):
        unused_s = session.attempt(lambda client: client.object("idletime", newest))
    return StoredRun(
        run_id=run_id,
        num_keys=num_keys,
        num_bytes=num_bytes,
        num_transitions=int(num_transitions or 0),
        unused_s=unused_s,
        learner=learner.decode(errors="replace"),
    )
