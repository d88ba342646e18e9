"""``hdqnn bench``: measure one part of the system on this machine and write one JSON object."""

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from cluster.errors import EXIT_DONE
from cluster.output_file import prepare_output_file

BENCHMARKS = {
    "qpu": "circuits per second of the simulators, and of peers that are installed",
    "soak": "memory per circuit over a million circuits through each simulator",
    "replay": "inserts through a real server, sampling from the learner's mirror",
    "service": "overhead of the QPU service over a bare Ray call; scaling over slow devices",
    "isa": "assembling circuits for IBM hardware against transpiling each of them",
    "generator": "weights from a circuit and their gradient, per update, against other simulators",
    "dist_qtrl": "teams of Quantum-Train agents on CartPole: depth, agents, classical control; a grid that takes hours",
    "slow_qpus": "Quantum-Train agents whose QPUs take 50 ms: gain over one agent",
    "actor": "environment steps per second: alone, and with policy and QPU service",
    "gradient": "circuits, seconds and cosine of a policy update's gradient: surrogate, shift rules, SPSA, adjoint",
    "faults": "real processes killed, frozen, cut off: what was lost, doubled, how long it took",
    "learner": "updates per second against the machine's matrix products and other TD3 learners",
    "learner_device": "updates per second of a GPU: plain against CUDA graphs, paper's and strong learner",
}


def run(arguments: list[str]) -> int:
    """Run one benchmark."""
    listing = "\n".join(f"  {name:14s} {text}" for name, text in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="hdqnn bench",
        description=f"Measures one part on this machine. Compare ratios of one run, not seconds of two.\n\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=sorted(BENCHMARKS), help="what to measure")
    parser.add_argument("--json", type=Path, help="write the result to this file (default: print it)")
    # A benchmark may have options of its own; only the one that was named is imported.
    named = next((argument for argument in arguments if argument in BENCHMARKS), None)
    module = importlib.import_module(f"benchmarks.{named}") if named else None
    if module is not None and hasattr(module, "add_arguments"):
        module.add_arguments(parser)
    parsed = parser.parse_args(arguments)
    prepare_output_file(parsed.json)
    options = {name: value for name, value in vars(parsed).items() if name not in ("name", "json")}
    result: dict[str, Any] = importlib.import_module(f"benchmarks.{parsed.name}").run(**options)
    text = json.dumps(result, indent=1) + "\n"
    sys.stdout.write(text)
    if parsed.json is not None:
        parsed.json.write_text(text)
    return EXIT_DONE
