"""``hdqnn replay``: what runs keep on replay servers that they share, and how the data of ended ones are dropped."""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from cluster.errors import EXIT_DONE, ConfigError
from cluster.progress import format_duration
from cluster.run_directory import RunDirectory
from replay.redis_session import RedisSession
from replay.server_urls import server_urls
from replay.stored_runs import ServerContents, drop_run, held_error, read_contents

_DEADLINE_S = 5.0
_SERVERS = "--servers"
_ONLY_STOPPED = (
    "a run whose data are dropped cannot be resumed any more, also where it was only stopped; its directory, with the "
    "policies in its checkpoints, stays as it is"
)


def run(arguments: list[str]) -> int:
    """List or drop."""
    _check_addresses(arguments)
    parsed = _parser().parse_args(arguments)
    urls = server_urls(parsed.servers or os.environ.get("REDIS_URL", ""))
    if not urls:
        raise ConfigError(
            "REDIS_URL is not set; expected the URL of the server that runs share, or several (URL,URL). A run that "
            "was started without it keeps its replay in its own directory (runs/NAME/replay)"
        )
    if parsed.command == "list":
        for url in urls:
            with closing(RedisSession(url, deadline_s=_DEADLINE_S)) as session:
                sys.stdout.write(describe(read_contents(session)))
        return EXIT_DONE
    return _drop(urls, parsed.runs, drops_ended=parsed.ended, is_confirmed=parsed.yes)


def describe(contents: ServerContents) -> str:
    """A server and its runs as a table."""
    limit = f"of at most {_size(contents.limit_bytes)} " if contents.limit_bytes else ""
    lines = [f"{contents.label}: {_size(contents.used_bytes)} {limit}in use, {len(contents.runs)} run(s)"]
    if contents.runs:
        width = max(len("run"), *(len(_shown(stored.run_id)) for stored in contents.runs))
        lines.append(f"  {'run':{width}s} {'transitions':>12s} {'memory':>9s} {'unused for':>12s}  learner")
        lines += [
            f"  {_shown(stored.run_id):{width}s} {stored.num_transitions:12,d} {_size(stored.num_bytes):>9s} "
            f"{_age(stored.unused_s):>12s}  {_shown(stored.learner) or '–'}"
            for stored in contents.runs
        ]
    return "\n".join(lines) + "\n"


def chosen_runs(everything: Sequence[ServerContents], names: Sequence[str]) -> list[str]:
    """Ids of the runs that were named, by id or by directory.

    Args:
        everything: what the servers hold.
        names: as given at the command line.

    Returns:
        Ids of runs with data on at least one of the servers, none of them twice.

    Raises:
        ConfigError: if a run has no data there.
        ReplayConfigError: if a learner holds the lease of one.
    """
    known = {stored.run_id for contents in everything for stored in contents.runs}
    chosen = list(dict.fromkeys(map(_run_id, names)))
    for run_id in chosen:
        if run_id not in known:
            raise ConfigError(
                f"no data of run {run_id!r} at {', '.join(contents.label for contents in everything)}; expected one "
                f"of {', '.join(map(_shown, sorted(known))) or '(there are none)'}, or a run directory. What a run "
                "with a server of its own has kept is in its directory"
            )
        for contents in everything:
            for stored in contents.runs:
                if stored.run_id == run_id and stored.learner:
                    raise held_error(run_id, contents.label, _shown(stored.learner))
    return chosen


def ended_runs(everything: Sequence[ServerContents]) -> list[str]:
    """Ids of the runs that no learner holds on any of the servers."""
    stored = [each for contents in everything for each in contents.runs]
    held = {each.run_id for each in stored if each.learner}
    return list(dict.fromkeys(each.run_id for each in stored if each.run_id not in held))


def _drop(urls: Sequence[str], names: Sequence[str], *, drops_ended: bool, is_confirmed: bool) -> int:
    if bool(names) == drops_ended:
        raise ConfigError(
            "expected the runs to drop, or --ended for all that nobody learns from, not both and not neither; "
            "`hdqnn replay list` shows them"
        )
    sessions = [RedisSession(url, deadline_s=_DEADLINE_S) for url in urls]
    try:
        # Everything is read and checked before anything is dropped.
        everything = [read_contents(session) for session in sessions]
        chosen = ended_runs(everything) if drops_ended else chosen_runs(everything, names)
        if drops_ended and chosen and not is_confirmed:
            for contents in everything:
                sys.stdout.write(describe(contents))
            raise ConfigError(
                f"--ended would drop {len(chosen)} run(s): {', '.join(map(_shown, chosen))}. Nothing was dropped: "
                f"{_ONLY_STOPPED}. Add --yes to drop them, or name those that you mean"
            )
        for run_id in chosen:
            for session in sessions:
                dropped = drop_run(session, run_id)
                if dropped.num_keys:
                    freed = f"freed {_size(dropped.num_bytes)} in {dropped.num_keys:,} keys"
                    sys.stdout.write(f"{_shown(run_id)}: {freed} at {session.label}\n")
        if not chosen:
            sys.stdout.write("nothing to drop: there is no run that nobody learns from\n")
    finally:
        for session in sessions:
            session.close()
    return EXIT_DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hdqnn replay",
        allow_abbrev=False,
        description="Runs with REDIS_URL set keep their replay on that server after their end, so that they can be "
        "resumed; a shared server fills up with them. This shows what is there and removes it. Runs without REDIS_URL "
        "are not concerned: theirs is in their own directory.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    listing = commands.add_parser(
        "list",
        allow_abbrev=False,
        help="which runs have data on the servers, how much, and who learns from it now",
        description="Prints the runs that have data on the servers, largest first. A run is called after its "
        "directory, with a suffix that its file run_id holds. `unused for` counts from the last time that its newest "
        "data were written or read, at most from the start of the server.",
    )
    dropping = commands.add_parser(
        "drop",
        allow_abbrev=False,
        help="remove all data of runs from the servers: hdqnn replay drop RUN [RUN …]",
        description=f"Removes the data of runs from the servers, and nothing else: {_ONLY_STOPPED}. Refused while a "
        "learner works with them. Name all servers of a run: what others hold stays.",
    )
    dropping.add_argument("runs", metavar="RUN", nargs="*", help="name in `hdqnn replay list`, or a run's directory")
    dropping.add_argument("--ended", action="store_true", help="every run that no learner works with, with --yes")
    dropping.add_argument("--yes", action="store_true", help="of --ended: those that were only stopped too")
    for each in (listing, dropping):
        each.add_argument(
            _SERVERS,
            metavar="URL[,URL]",
            help="instead of REDIS_URL, which keeps a password from other users of this machine",
        )
    return parser


def _check_addresses(arguments: Sequence[str]) -> None:
    """Refuse an address in a place where it would be repeated in a message: it may hold a password."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if "://" in argument and before != _SERVERS and not argument.startswith(f"{_SERVERS}="):
            raise ConfigError(f"got an address where none belongs; servers are given by REDIS_URL or by {_SERVERS} URL")


def _run_id(name: str) -> str:
    """What a run is called on a server, from that name or from its directory."""
    file = RunDirectory(Path(name)).run_id
    return file.read_text().strip() if file.is_file() else name


def _age(seconds: int | None) -> str:
    return "–" if seconds is None else format_duration(seconds)


def _size(num_bytes: int) -> str:
    unit, name = next((each for each in ((1e9, "GB"), (1e6, "MB")) if num_bytes >= each[0]), (1e3, "kB"))
    return f"{num_bytes / unit:.1f} {name}"


def _shown(text: str) -> str:
    """Without what would act on a terminal: others may write to a shared server."""
    return "".join(character if character.isprintable() else "?" for character in text)
