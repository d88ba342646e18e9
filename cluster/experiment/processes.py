"""Commands of an experiment as processes: threads that don't fight, a log each, no survivors."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster.experiment.scheduler import RunningCommand

_PR_SET_PDEATHSIG = 1
_CODE = Path(__file__).parents[2]
"""Where these packages are: a run's code is the experiment's, whatever is installed or in the working directory."""


class CommandSpawner:
    """Starts ``hdqnn`` commands.

    Args:
        num_threads: of every numerical library in them.
    """

    def __init__(self, num_threads: int) -> None:
        self._num_threads = num_threads

    def __call__(self, arguments: Sequence[str], log: Path) -> RunningCommand:
        """Start one; its output is appended to ``log``, where its arguments come first."""
        with log.open("a") as output:
            output.write(f"$ hdqnn {' '.join(arguments)}\n")
            output.flush()
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "cluster", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": _python_path(), "OMP_NUM_THREADS": str(self._num_threads)},
                # A group of its own: Ctrl-C at the terminal reaches the experiment alone, which tells the runs once.
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )


def _python_path() -> str:
    return os.pathsep.join([str(_CODE), *filter(None, [os.environ.get("PYTHONPATH")])])


def _end_with_parent() -> None:
    """An experiment that is killed asks its runs to save and end: nobody would look after them."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    except (AttributeError, OSError):
        return  # not Linux: they run to their own end
