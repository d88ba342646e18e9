"""What a failure looks like to the person at the terminal: one message and an exit code.

Our own errors and those of files and sockets say what is wrong; anything else is a bug and keeps its traceback.
"""

import sys
import traceback

from actors.errors import ActorError
from cluster.errors import EXIT_FAILED, EXIT_REFUSED, ClusterError
from learner.errors import LearnerDivergedError, LearnerError
from qpu_service.errors import QPUError
from replay.errors import ReplayError

_OURS = (ActorError, ClusterError, LearnerError, QPUError, ReplayError)


def report_failure(error: Exception) -> int:
    """Print the error for a person; returns the exit code."""
    if isinstance(error, (*_OURS, OSError)):
        sys.stderr.write(f"hdqnn: {error}\n")
        return exit_code(error)
    traceback.print_exception(error, file=sys.stderr)
    sys.stderr.write(f"hdqnn: failed while running: {type(error).__name__}: {error}\n")
    return EXIT_FAILED


def exit_code(error: Exception) -> int:
    """2 for what was wrong from the start (bad input), 1 for what failed on the way."""
    if isinstance(error, ClusterError):
        return error.exit_code
    if isinstance(error, LearnerDivergedError | OSError):
        return EXIT_FAILED
    return EXIT_REFUSED
