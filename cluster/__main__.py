"""Command line of hdqnn-rl: ``hdqnn COMMAND …``. Errors end with one message; nobody sees a traceback for a typo."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from cluster.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_REFUSED
from cluster.failures import report_failure
from cluster.process_tuning import tune_process

_COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("cluster.command_train", "train a policy: hdqnn train [preset] [--field value …]"),
    "resume": ("cluster.command_resume", "go on with a run that was stopped: hdqnn resume runs/NAME"),
    "evaluate": ("cluster.command_evaluate", "test a run's newest policy on the real circuit"),
    "export": ("cluster.command_export", "a run's newest policy as one file, for hdqnn evaluate anywhere"),
    "qpu": ("cluster.command_qpu", "hdqnn qpu estimate: what a run costs on hardware, before anything is sent"),
    "replay": ("cluster.command_replay", "what runs keep on shared replay servers: hdqnn replay list | drop RUN"),
    "report": ("cluster.command_report", "summarise a run or compare several"),
    "experiment": ("cluster.command_experiment", "a grid of runs from one file, with statistics over seeds"),
    "bench": ("cluster.command_bench", "measure a part: hdqnn bench NAME --json FILE"),
    "doctor": ("cluster.command_doctor", "check this machine: packages, backend, replay server, Ray"),
}

_USAGE = """\
hdqnn trains reinforcement-learning policies with a quantum circuit inside.

usage: hdqnn COMMAND [arguments]      hdqnn COMMAND --help says more

{commands}

try: hdqnn train smoke                        every part once, in under a minute
     hdqnn train pendulum --seed 2            balance a pendulum
     QPU_BACKEND=aer hdqnn train pendulum     the same with Qiskit Aer as the QPU
     hdqnn train humanoid --synchronous       one process, no Ray, no Redis, bit-reproducible

exit codes: 0 done, 1 failed while running, 2 refused at the start, 130 stopped with Ctrl-C (after saving)
"""


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if not arguments or arguments[0] in ("-h", "--help"):
        listing = "\n".join(f"  {name:10s} {text}" for name, (_, text) in _COMMANDS.items())
        sys.stdout.write(_USAGE.format(commands=listing))
        return EXIT_DONE if arguments else EXIT_REFUSED
    name, *rest = arguments
    if name not in _COMMANDS:
        sys.stderr.write(f"hdqnn: unknown command {name!r}; expected one of {', '.join(_COMMANDS)}\n")
        return EXIT_REFUSED
    tune_process()
    command: Callable[[list[str]], int] = import_module(_COMMANDS[name][0]).run
    try:
        return command(rest)
    except BrokenPipeError:
        raise
    except Exception as error:
        return report_failure(error)
    except KeyboardInterrupt:
        sys.stderr.write("hdqnn: stopped at once; what the last checkpoint holds is safe\n")
        return EXIT_INTERRUPTED


def main() -> None:
    """Entry point of the console script."""
    # A console script does not look where it is called, and a user's own environments are there (--env-id module:Id).
    # Last, so that no file there takes the place of a module of ours; Ray gives the same directory to its workers.
    sys.path.append("")
    # A command that looks after neither signal ends by both the same way: what it opened is closed, a paid session of a
    # device among it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has gone, as `| head` does; nothing more can be told, not even by the interpreter.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_FAILED
    sys.exit(code)


if __name__ == "__main__":
    main()
