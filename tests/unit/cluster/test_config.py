"""Configurations survive YAML unchanged; wrong ones are refused with the field's name."""

import dataclasses
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from actors.config import ActorConfig, EvaluationConfig
from cluster.config import CheckpointConfig, RunConfig, from_dict, read_config, to_dict, write_config
from cluster.errors import EXIT_REFUSED, ConfigError
from learner.config import PolicyConfig, SurrogateConfig, TD3Config
from qpu_service.circuit import CircuitShape
from qpu_service.config import QPUConfig
from replay.config import ReplayConfig

COUNT = st.integers(1, 10**9)
POSITIVE = st.floats(min_value=1e-300, max_value=1e300)
NOT_NEGATIVE = st.floats(min_value=0, max_value=1e300)
SHARE = st.floats(0, 1)
TEXT = st.text(max_size=20)
SHAPES = st.builds(CircuitShape, num_qubits=st.integers(1, 20), num_layers=COUNT)
CONFIGS = st.builds(
    RunConfig,
    env_id=TEXT,
    block=st.sampled_from(["pqc", "linear", "random_bits", "zeros"]),
    backend=st.none() | TEXT,
    total_steps=COUNT,
    stop_return=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    seed=st.integers(0, 2**64),
    run_dir=st.none() | st.just(Path("runs/a b")) | st.just(Path("/tmp/ü")),
    synchronous=st.booleans(),
    device=TEXT,
    num_threads=st.none() | COUNT,
    publish_period_updates=COUNT,
    log_period_steps=COUNT,
    policy=st.builds(PolicyConfig, hidden_size=COUNT, num_links=st.integers(0, 100), circuit=SHAPES),
    surrogate=st.builds(SurrogateConfig, hidden_size=st.none() | COUNT, learning_rate=POSITIVE, num_tiny_batches=COUNT),
    td3=st.builds(
        TD3Config,
        batch_size=COUNT,
        discount_factor=SHARE,
        policy_learning_rate=POSITIVE,
        target_noise_std=NOT_NEGATIVE,
        updates_per_step=POSITIVE,
        learning_starts=st.integers(1, 10**6),
    ),
    actors=st.builds(
        ActorConfig, num_actors=COUNT, segment_length=st.integers(1, 10**6), exploration_noise_std=NOT_NEGATIVE
    ),
    evaluation=st.builds(EvaluationConfig, period_steps=COUNT, num_episodes=COUNT),
    replay=st.builds(ReplayConfig, capacity=st.integers(10**6, 10**9), slack_steps=COUNT),
    qpu=st.builds(QPUConfig, num_workers=COUNT, max_delay_s=NOT_NEGATIVE, timeout_s=POSITIVE),
    checkpoint=st.builds(CheckpointConfig, period_s=POSITIVE, period_steps=st.none() | COUNT, keep=COUNT),
)


@given(CONFIGS)
def test_every_configuration_survives_yaml(tmp_path_factory, config):
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    write_config(config, path)
    assert read_config(path) == config


def test_a_configuration_holds_plain_values_only():
    plain = to_dict(RunConfig(run_dir=Path("x")))
    assert plain["run_dir"] == "x"
    assert yaml.safe_load(yaml.safe_dump(plain)) == plain


def test_missing_fields_take_their_defaults():
    assert from_dict({"seed": 4, "td3": {"batch_size": 7}}) == RunConfig(seed=4, td3=TD3Config(batch_size=7))


@pytest.mark.parametrize(
    ("plain", "parts"),
    [
        ({"sed": 1}, ["config has unknown fields ['sed']", "'seed'"]),
        ({"td3": {"tau": 1}}, ["config.td3 has unknown fields ['tau']", "'polyak_coefficient'"]),
        ({"policy": {"circuit": {"qubits": 3}}}, ["config.policy.circuit has unknown fields", "'num_qubits'"]),
        ({"seed": "one"}, ["config.seed must be int", "'one'"]),
        ({"seed": True}, ["config.seed must be int", "True"]),
        ({"seed": 1.5}, ["config.seed must be int", "1.5"]),
        ({"seed": None}, ["config.seed must be int", "None"]),
        ({"synchronous": 1}, ["config.synchronous must be bool", "1"]),
        ({"td3": {"discount_factor": "0.9"}}, ["config.td3.discount_factor must be float", "'0.9'"]),
        ({"block": "quantum"}, ["config.block must be one of", "'pqc'", "'quantum'"]),
        ({"block": ["pqc"]}, ["config.block must be one of", "['pqc']"]),
        ({"backend": 3}, ["config.backend must be str", "3"]),
        ({"td3": [1]}, ["config.td3 must be a mapping", "[1]"]),
        (None, ["config must be a mapping", "None"]),
        ({"td3": {"batch_size": 0}}, ["config.td3: batch_size must be at least 1, got 0"]),
        ({"policy": {"circuit": {"num_qubits": 21}}}, ["config.policy.circuit: num_qubits must be in 1..20, got 21"]),
        ({"seed": -1}, ["config: seed must be 0 or more, got -1"]),
        ({"total_steps": 0}, ["config: total_steps must be at least 1, got 0"]),
        ({"num_threads": 0}, ["num_threads must be at least 1, got 0"]),
        ({"replay": {"capacity": 100}}, ["replay.capacity (100)", "td3.learning_starts (25000)", "raise the one"]),
        (
            {"replay": {"capacity": 100}, "td3": {"learning_starts": 10}, "actors": {"segment_length": 101}},
            ["replay.capacity (100)", "actors.segment_length (101)"],
        ),
    ],
    ids=str,
)
def test_wrong_configurations_are_refused_with_the_fields_name(plain, parts):
    with pytest.raises(ConfigError) as raised:
        from_dict(plain)
    assert raised.value.exit_code == EXIT_REFUSED
    for part in parts:
        assert part in str(raised.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
@pytest.mark.parametrize(
    "field",
    [
        "actors.exploration_noise_std",
        "checkpoint.period_s",
        "surrogate.learning_rate",
        "td3.discount_factor",
        "td3.polyak_coefficient",
        "td3.policy_learning_rate",
        "td3.critic_learning_rate",
        "td3.target_noise_std",
        "td3.target_noise_clip",
        "td3.updates_per_step",
        "qpu.timeout_s",
        "qpu.max_delay_s",
    ],
)
def test_no_number_may_be_nan_or_infinite(field, value):
    section, name = field.split(".")
    with pytest.raises(ConfigError, match=name):
        from_dict({section: {name: value}})


def test_a_goal_that_is_not_a_number_is_refused():
    with pytest.raises(ConfigError, match="stop_return must be a finite number, got nan"):
        from_dict({"stop_return": float("nan")})


@pytest.mark.parametrize("text", [None, "a: [", "\x00"], ids=["missing", "not YAML", "not text"])
def test_a_configuration_that_cannot_be_read_names_its_file(tmp_path, text):
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=r"cannot read the run's configuration .*config\.yaml"):
        read_config(path)


def test_a_file_that_is_not_utf8_names_itself(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        read_config(path)


def test_no_field_can_hold_a_secret():
    def names(kind):
        for field in dataclasses.fields(kind):
            yield field.name
            if dataclasses.is_dataclass(field.type):
                yield from names(field.type)

    for word in ("token", "password", "secret", "key", "url"):
        assert not [name for name in names(RunConfig) if word in name]
