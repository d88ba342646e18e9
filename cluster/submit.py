"""Run hdqnn on a cluster and follow it from here: ``python -m cluster.submit cluster/aws.yaml -- train humanoid``.

The run is a Ray job: it lives on the head node and goes on when this machine sleeps, loses the network or is closed.
"""

import argparse
import asyncio
import itertools
import os
import re
import secrets
import shlex
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from cluster.errors import EXIT_DONE, EXIT_FAILED, ClusterError, ConfigError
from cluster.head_tunnel import REMOTE_PROJECT, HeadTunnel
from cluster.job_follow import STOPPED, SUCCEEDED, follow
from cluster.ray_jobs import JOB_PREFIX, RayJobs

EXIT_DETACHED = 130
FORWARDED_VARIABLES = (
    "QPU_BACKEND",
    "QPU_DEVICE",
    "QPU_MODE",
    "QPU_SAMPLER",
    "QPU_FRACTIONAL_GATES",
    "QPU_READOUT_MITIGATION",
    "QPU_DEADLINE_SECONDS",
    "QPU_REP_DELAY_SECONDS",
    "QPU_BUDGET_SECONDS",
    "QPU_BUDGET_JOBS",
)
"""Settings of this machine's environment that a job gets too. Never secrets: a job's environment is public. Nor
QPU_JOURNAL_DIR: where the journal is kept, the head node decides."""
HISTORY_LINES = 40
"""Lines of its past output that attaching to a run shows."""

_HELP = """\
examples:
  ray up cluster/aws.yaml                                        start the machines (they cost money from here)
  python -m cluster.submit cluster/aws.yaml -- train humanoid    start a run there and follow it
  python -m cluster.submit cluster/aws.yaml --list               which runs are on it
  python -m cluster.submit cluster/aws.yaml --attach             follow the one that is
  python -m cluster.submit cluster/aws.yaml --stop ID            end it: it writes a checkpoint first
  ray rsync-down cluster/aws.yaml '~/hdqnn-rl/runs/' runs/       fetch what it left
  ray down cluster/aws.yaml                                      end the machines, and their disks

Everything after -- is given to hdqnn on the head node; `hdqnn --help` lists it.
Ctrl-C detaches: the run goes on. The same command given again while its run goes on attaches to it.
QPU_BACKEND, QPU_DEVICE and the device's other settings (QPU_BUDGET_SECONDS, ...) are passed on; secrets are not, they
belong into ~/.hdqnn-rl.env of the head node.

exit code: 0 the run succeeded, 1 it failed or was stopped, 2 nothing was run or the cluster was lost, 130 detached
"""


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m cluster.submit",
        usage="%(prog)s CLUSTER [--another] -- COMMAND ...\n"
        "       %(prog)s CLUSTER (--list | --attach [ID] | --stop ID)",
        description="Run hdqnn on a cluster that `ray up` started, and follow it until it ends.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "cluster",
        metavar="CLUSTER",
        help="file that `ray up` was run with, or http://host:port of a Ray dashboard (its token in RAY_AUTH_TOKEN)",
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--attach", metavar="ID", nargs="?", const="", help="follow a run (default: the newest)")
    action.add_argument("--stop", metavar="ID", help="end a run and follow it until it has ended")
    action.add_argument("--list", action="store_true", help="print the runs that wait or run, and their commands")
    parser.add_argument("--another", action="store_true", help="start a run although another one is on the cluster")
    return parser


def split_command(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our own arguments, and those of hdqnn after the first ``--``."""
    own = list(itertools.takewhile(lambda argument: argument != "--", argv))
    return own, list(argv[len(own) + 1 :])


def entrypoint_for(command: Sequence[str]) -> str:
    """Shell command that runs hdqnn on the head node of a cluster.

    Args:
        command: arguments of hdqnn.

    Returns:
        POSIX shell. Ray gives job drivers OMP_NUM_THREADS=1; the learner wants every core.

    Raises:
        ConfigError: if there are no arguments.
    """
    if not command:
        raise ConfigError("no command: expected e.g. `-- train humanoid` after the cluster; --help shows more")
    where = 'cd "${HDQNN_HOME:?unknown here: this Ray was not started with cluster/node.sh}"'
    return f"unset OMP_NUM_THREADS; {where} && exec hdqnn {shlex.join(command)}"


def choose_job(active: dict[str, str], entrypoint: str, *, another: bool, new_id: str) -> tuple[str, bool]:
    """Decide whether to start a run or to attach to one.

    Args:
        active: entrypoints of the runs on the cluster, by id.
        entrypoint: of the run that is asked for.
        another: start it even beside other runs.
        new_id: id for a new run.

    Returns:
        Id of the run to follow, and whether it is to be started.

    Raises:
        ConfigError: if a different run is on the cluster.
    """
    if another or not active:
        return new_id, True
    same = [job_id for job_id, running in active.items() if running == entrypoint]
    if same:
        return same[-1], False
    listing = "\n".join(f"    {job_id}: {_command_of(running)}" for job_id, running in active.items())
    raise ConfigError(
        f"a run is on this cluster already:\n{listing}\nfollow it with --attach, end it with --stop ID, "
        "or share the machines between both with --another"
    )


def _command_of(entrypoint: str) -> str:
    return re.sub(r"^.* exec ", "", entrypoint)


class _FixedEndpoint:
    """A dashboard that can be reached directly."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    async def url(self) -> str:
        return self._url

    def close(self) -> None:
        pass


def token_from_environment() -> str | None:
    """Ray's token as Ray finds it: RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token; else None."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


async def _act(arguments: argparse.Namespace, command: Sequence[str], jobs: RayJobs) -> int:
    """Do what was asked; returns the exit code."""
    active = await jobs.active()
    if arguments.list:
        _write("".join(f"{job_id}  {_command_of(entrypoint)}\n" for job_id, entrypoint in active.items()))
        return EXIT_DONE
    if arguments.stop:
        await jobs.stop(arguments.stop)
        _say(f"asked {arguments.stop} to end; it writes a checkpoint first")
        return await _watch(jobs, arguments.stop, arguments.cluster, is_new=False, wanted={SUCCEEDED, STOPPED})
    if arguments.attach is not None:
        if not (arguments.attach or active):
            raise ConfigError("no run is on this cluster: expected one to attach to; name an ended one by its ID")
        job_id, is_new = arguments.attach or list(active)[-1], False
    else:
        job_id, is_new = await _start(jobs, active, entrypoint_for(command), another=arguments.another)
    return await _watch(jobs, job_id, arguments.cluster, is_new=is_new, wanted={SUCCEEDED})


async def _start(jobs: RayJobs, active: dict[str, str], entrypoint: str, *, another: bool) -> tuple[str, bool]:
    """Start the run, or find that it runs already; returns its id and whether it is new."""
    new_id = f"{JOB_PREFIX}{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    job_id, is_new = choose_job(active, entrypoint, another=another, new_id=new_id)
    if is_new:
        await jobs.submit(job_id, entrypoint, {k: os.environ[k] for k in FORWARDED_VARIABLES if os.environ.get(k)})
    _say(f"{'started' if is_new else 'already running:'} {job_id}")
    return job_id, is_new


async def _watch(jobs: RayJobs, job_id: str, cluster: str, *, is_new: bool, wanted: set[str]) -> int:
    """Follow a run to its end; returns the exit code."""
    _say(f"Ctrl-C detaches, the run goes on; follow it again: python -m cluster.submit {cluster} --attach {job_id}")
    skip = 0
    if not is_new:
        history = await jobs.log_so_far(job_id)
        skip = len(history)
        _write("".join(history.splitlines(keepends=True)[-HISTORY_LINES:]))
    status = await follow(jobs, job_id, write=_write, notify=_say, skip=skip)
    _say(f"{job_id} ended: {status}. {await jobs.message(job_id)}")
    if not cluster.startswith("http"):
        _say(f"fetch its files before `ray down`: ray rsync-down {cluster} '{REMOTE_PROJECT}/runs/' runs/")
    return EXIT_DONE if status in wanted else EXIT_FAILED


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point.

    Args:
        argv: command line without the program's name; default: of this process.

    Returns:
        Exit code, as ``--help`` lists them.
    """
    own, command = split_command(sys.argv[1:] if argv is None else argv)
    arguments = make_parser().parse_args(own)
    try:
        if not (arguments.list or arguments.stop or arguments.attach is not None):
            entrypoint_for(command)
        if arguments.cluster.startswith(("http://", "https://")):
            endpoint: HeadTunnel | _FixedEndpoint = _FixedEndpoint(arguments.cluster)
            token = token_from_environment()
        else:
            endpoint = HeadTunnel(Path(arguments.cluster))
            _say(f"head node {endpoint.check_is_up()}; opening a tunnel to it")
            token = endpoint.fetch_token()
        with closing(endpoint):
            return asyncio.run(_act(arguments, command, RayJobs(endpoint, token)))
    except KeyboardInterrupt:
        _say("\ndetached; a run that was started goes on")
        return EXIT_DETACHED
    except ClusterError as error:
        _say(f"error: {error}")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
