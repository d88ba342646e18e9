"""An exported policy is the policy, and nothing but a policy is read as one."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cluster.errors import ConfigError
from cluster.policy_file import read_policy, write_policy
from cluster.presets import get_preset
from learner.parameters import VersionedParameters

ARRAYS = {
    "pre.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "normaliser.count": np.array(7.0, dtype=np.float64),
    "frozen": np.zeros((0, 4), dtype=np.float32),
}
PARAMETERS = VersionedParameters(version=9, arrays=ARRAYS, env_step=180_027, update_step=43_756)


def config(**values):
    return dataclasses.replace(get_preset("pendulum"), seed=3, run_dir=Path("runs/somewhere"), **values)


def test_what_is_written_is_read_and_the_run_stays_behind(tmp_path):
    path = tmp_path / "new" / "policy.safetensors"
    write_policy(path, config(backend="aer"), PARAMETERS)
    found, parameters = read_policy(path)
    assert found == dataclasses.replace(config(backend="aer"), run_dir=None)
    assert b"somewhere" not in path.read_bytes()
    assert (parameters.env_step, parameters.update_step) == (180_027, 43_756)
    assert parameters.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(parameters.arrays[name], array, strict=True)
    assert [file.name for file in path.parent.iterdir()] == ["policy.safetensors"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "policy.safetensors"
    write_policy(path, config(), PARAMETERS)
    before = path.read_bytes()
    bad = dataclasses.replace(PARAMETERS, arrays={"odd": np.array(["text"], dtype=object)})
    with pytest.raises((OSError, ValueError, KeyError, TypeError)):
        write_policy(path, config(), bad)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["policy.safetensors"]


def header(**values):
    return {"format": "hdqnn-policy-1", "config": "{}", "env_step": "1", "update_step": "1", **values}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": "pt"}, "is no policy of hdqnn-rl: its header has format 'pt'"),
        ({"config": "{"}, "header of .* is damaged"),
        ({"config": '{"env_id": "Pendulum-v1", "colour": 1}'}, "colour"),
        ({"env_step": "many"}, "header of .* is damaged"),
    ],
)
def test_what_is_no_policy_is_refused(tmp_path, values, message):
    path = tmp_path / "policy.safetensors"
    save_file({"a": np.zeros(1, np.float32)}, path, header(**values))
    with pytest.raises(ConfigError, match=message):
        read_policy(path)


def test_a_cut_file_is_refused(tmp_path):
    path = tmp_path / "policy.safetensors"
    write_policy(path, config(), PARAMETERS)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ConfigError, match=r"cannot read the policy .*hdqnn export RUN"):
        read_policy(path)


def test_other_tools_read_the_weights(tmp_path):
    path = tmp_path / "policy.safetensors"
    write_policy(path, config(), PARAMETERS)
    np.testing.assert_array_equal(load_file(path)["pre.0.weight"], ARRAYS["pre.0.weight"])
