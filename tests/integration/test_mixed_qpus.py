"""Three QPU workers on three backends, each actor with its own: one training run on Ray. About 40 s."""

import pytest

from cluster.run_directory import RunDirectory, read_rows
from tests.commands import TINY, hdqnn
from tests.environments import PREFIX
from tests.integration.stored_segments import assert_every_transition_is_there_once, read_replay

pytestmark = [pytest.mark.ray, pytest.mark.redis, pytest.mark.slow]

ARGUMENTS = [
    *("train", "smoke", *TINY, "--env-id", f"{PREFIX}Slow-v0", "--run-dir", "run", "--total-steps", "4000"),
    *("--td3.learning-starts", "3000", "--replay.slack-steps", "400", "--log-period-steps", "200"),
    *("--evaluation.period-steps", "10000", "--evaluation.num-episodes", "1"),
    *("--actors.num-actors", "3", "--actors.segment-length", "4", "--qpu.routing", "affinity"),
    *("--td3.updates-per-step", "0.1"),
]


def test_each_actor_gets_its_bits_from_its_own_backend(tmp_path):
    finished = hdqnn(*ARGUMENTS, directory=tmp_path, QPU_BACKEND="statevector,aer,ibm", QPU_DEVICE=",,fake_manila")
    assert finished.code == 0, finished
    segments, counters = read_replay(tmp_path / "run")
    assert_every_transition_is_there_once(segments, counters)
    backends = {}
    for segment in segments:
        backends.setdefault(segment.actor_id, set()).add(segment.backend_name)
    assert backends == {0: {"statevector"}, 1: {"aer"}, 2: {"ibm:fake_manila"}}
    rows = [row for row in read_rows(RunDirectory(tmp_path / "run").metrics) if "qpu/errors" in row]
    assert {(row["qpu/errors"], row["qpu/restarts"]) for row in rows} <= {(0.0, 0.0)}
