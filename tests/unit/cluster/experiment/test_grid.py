"""A file becomes runs: which, in which order, with which configuration, and what is refused before anything starts."""

import itertools
from pathlib import Path

import pytest
import yaml

from cluster.config import to_dict
from cluster.errors import ConfigError
from cluster.experiment.fields import flags_of
from cluster.experiment.grid import read_experiment
from cluster.presets import get_preset

_EXPERIMENTS = Path(__file__).parents[4] / "experiments"
_KEPT = _EXPERIMENTS.parent / "docs" / "results" / "grids"


def write(tmp_path, **fields):
    path = tmp_path / "blocks.yaml"
    path.write_text(yaml.safe_dump(fields))
    return path


def read(tmp_path, **fields):
    return read_experiment(write(tmp_path, **fields))


def test_every_combination_is_there_once_and_seed_by_seed(tmp_path):
    experiment = read(tmp_path, presets=["pendulum", "hopper"], blocks=["pqc", "mlp"], seeds=3)
    found = [(run.seed, run.preset, run.block) for run in experiment.runs]
    assert found == list(itertools.product([1, 2, 3], ["pendulum", "hopper"], ["pqc", "mlp"]))
    assert len({run.name for run in experiment.runs}) == 12
    for run in experiment.runs:
        assert (run.config.seed, run.config.block) == (run.seed, run.block)
        assert run.config.env_id == get_preset(run.preset).env_id
    assert experiment.environments() == {"Pendulum-v1": ["pqc", "mlp"], "Hopper-v4": ["pqc", "mlp"]}


def test_what_a_file_leaves_out(tmp_path):
    experiment = read(tmp_path, presets="pendulum")
    assert [(run.name, run.group, run.variant) for run in experiment.runs] == [("pendulum-pqc-s1", "pqc", "default")]
    assert (experiment.name, experiment.directory) == ("blocks", Path("runs/blocks"))
    assert (experiment.final_episodes, experiment.bootstrap_resamples) == (100, 10_000)
    assert experiment.baselines == ()
    assert experiment.goals == {}


def test_seeds_can_be_listed(tmp_path):
    assert [run.seed for run in read(tmp_path, presets="pendulum", seeds=[7, 3]).runs] == [7, 3]


def test_variants_are_an_axis_and_change_what_they_say_alone(tmp_path):
    variants = {"paper": None, "wide": {"critic": {"hidden_size": 512}, "td3.batch_size": 64}}
    experiment = read(tmp_path, presets="pendulum", variants=variants, overrides={"td3.batch_size": 128})
    paper, wide = experiment.runs
    assert [run.group for run in experiment.runs] == ["pqc paper", "pqc wide"]
    assert [run.name for run in experiment.runs] == ["pendulum-paper-pqc-s1", "pendulum-wide-pqc-s1"]
    assert (paper.config.td3.batch_size, wide.config.td3.batch_size) == (128, 64)
    assert wide.config.critic.hidden_size == 512
    plain = to_dict(wide.config)
    plain["critic"]["hidden_size"], plain["td3"]["batch_size"] = paper.config.critic.hidden_size, 128
    assert plain == to_dict(paper.config)


def test_presets_of_one_environment_are_groups_of_their_own(tmp_path):
    experiment = read(tmp_path, presets=["pendulum", "smoke", "hopper"], baseline=["smoke pqc", "pqc"])
    assert experiment.environments() == {"Pendulum-v1": ["pendulum pqc", "smoke pqc"], "Hopper-v4": ["pqc"]}


def test_the_command_of_a_run_gives_its_configuration(tmp_path):
    from cluster.command_train import parse_config

    overrides = {
        "synchronous": True,
        "stop_return": None,
        "td3": {"critic_learning_rate": "1e-3", "learning_starts": "2e3"},
        "policy.circuit.num_qubits": 3,
        "qpu.routing": "affinity",
        "checkpoint.period_s": 30,
    }
    (run,) = read(tmp_path, presets="pendulum", blocks="linear", seeds=[5], overrides=overrides).runs
    assert run.config.td3.critic_learning_rate == 1e-3
    assert (run.config.synchronous, run.config.stop_return) == (True, None)
    assert parse_config("pendulum", list(run.flags)) == run.config


def test_flags_of_every_kind_of_value():
    values = {"td3.batch_size": 3, "synchronous": False, "qpu.x_y": True, "stop_return": None, "sizes": [1, 2]}
    expected = "--td3.batch-size 3 --no-synchronous --qpu.x-y --stop-return None --sizes 1 2"
    assert flags_of(values) == tuple(expected.split())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "names no presets"),
        ({"presets": "pendulm"}, "unknown preset 'pendulm'; expected one of pendulum"),
        ({"presets": []}, "presets must be a name or a list of names, got []"),
        ({"presets": "pendulum", "block": "pqc"}, "unknown fields ['block']; the known ones are name, directory"),
        ({"presets": "pendulum", "blocks": "quantum"}, "config.block must be one of ['pqc'"),
        ({"presets": "pendulum", "seeds": 0}, "seeds must be a whole number of at least 1, got 0"),
        ({"presets": "pendulum", "seeds": [1, -1]}, "seeds must be a whole number of at least 0, got -1"),
        ({"presets": "pendulum", "seeds": [1, 1]}, "runs ['pendulum-pqc-s1'] are in the grid twice"),
        ({"presets": "pendulum", "overrides": {"td3.batchsize": 3}}, "config.td3 has unknown fields ['batchsize']"),
        ({"presets": "pendulum", "overrides": {"td3.batch_size": 0}}, "batch_size must be at least 1, got 0"),
        ({"presets": "pendulum", "overrides": {"td3.batch_size": "x"}}, "td3.batch_size must be int, got 'x'"),
        ({"presets": "pendulum", "overrides": {"seed.x": 1}}, "seed.x cannot be set, seed is no group of fields"),
        (
            {"presets": "pendulum", "overrides": {"seed": 1, "block": "mlp"}},
            "leave block (use blocks), seed (use seeds)",
        ),
        ({"presets": "pendulum", "overrides": [1]}, "overrides must be a mapping"),
        ({"presets": "pendulum", "variants": {"a b": {}}}, "the name of a variant must be letters"),
        ({"presets": "pendulum", "variants": {"a": 3}}, "variants must be a mapping"),
        ({"presets": "pendulum", "name": "../up"}, "name must be letters, digits, dots, dashes"),
        ({"presets": "pendulum", "baseline": "mlp"}, "['mlp'] names 0 groups of Pendulum-v1, expected exactly one of"),
        ({"presets": "pendulum", "goals": {"Hopper-v4": 1}}, "goals has ['Hopper-v4']; expected environments"),
        ({"presets": "pendulum", "goals": {"Pendulum-v1": "high"}}, "goals must be a mapping"),
        ({"presets": "pendulum", "final_episodes": -1}, "final_episodes must be a whole number of at least 0, got -1"),
        ({"presets": "pendulum", "bootstrap_resamples": 10}, "bootstrap_resamples must be a whole number of at least"),
    ],
)
def test_mistakes_are_named_before_anything_runs(tmp_path, fields, message):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, **fields)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["presets: [", "- pendulum", ""])
def test_what_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        read_experiment(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the experiment .*none\.yaml"):
        read_experiment(tmp_path / "none.yaml")


def test_a_field_given_twice_is_refused(tmp_path):
    path = tmp_path / "blocks.yaml"
    path.write_text("presets: pendulum\nseeds: 2\nblocks: [pqc]\nseeds: 10\n")
    with pytest.raises(ConfigError, match=r"'seeds' is there twice.*line 4"):
        read_experiment(path)


def test_a_name_inside_a_field_given_twice_is_refused(tmp_path):
    path = tmp_path / "blocks.yaml"
    path.write_text("presets: pendulum\noverrides:\n  seed: 1\n  seed: 2\n")
    with pytest.raises(ConfigError, match=r"'seed' is there twice.*line 4"):
        read_experiment(path)


@pytest.mark.parametrize("path", sorted(_EXPERIMENTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_our_own_experiments_read_and_keep_their_results(path):
    experiment = read_experiment(path)
    assert experiment.results is not None
    assert experiment.results.resolve().parent == _KEPT
    assert len({run.seed for run in experiment.runs}) >= 5
    assert experiment.baselines


def test_what_two_of_our_experiments_share_is_the_same_run():
    runs = [run for path in _EXPERIMENTS.glob("*.yaml") for run in read_experiment(path).runs]
    by_name = {}
    for run in runs:
        assert by_name.setdefault(run.name, run.config) == run.config
    assert len(by_name) < len(runs)


def test_every_committed_result_is_of_one_of_our_experiments():
    planned = {
        (read.results.resolve(), f"{run.name}.json")
        for read in map(read_experiment, _EXPERIMENTS.glob("*.yaml"))
        for run in read.runs
    }
    kept = {(path.parent, path.name) for path in _KEPT.rglob("*.json")}
    assert kept
    assert kept <= planned
