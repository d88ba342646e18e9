"""What cluster/*.yaml and deploy/* promise, checked without a cloud, a container engine or Kubernetes."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import pytest
import yaml

from cluster.head_tunnel import REMOTE_PROJECT

ROOT = Path(__file__).parents[2]
CLUSTER_FILES = ("aws", "local")
COMMAND_LISTS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
RAY_PORT = 6379
OUR_FILES = sorted([*ROOT.glob("cluster/*.yaml"), *ROOT.glob("cluster/*.sh"), *(ROOT / "deploy").iterdir()])


def cluster_file(name: str) -> dict:
    return yaml.safe_load((ROOT / "cluster" / f"{name}.yaml").read_text())


def constraint(package: str) -> str:
    found = re.search(rf"^{re.escape(package)}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found, f"constraints.txt does not pin {package}"
    return found.group(1)


def compose() -> dict:
    return yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())


def rayjob() -> dict:
    (job,) = [d for d in yaml.safe_load_all((ROOT / "deploy/kuberay.yaml").read_text()) if d["kind"] == "RayJob"]
    return job


def start_commands(config: dict) -> list[str]:
    return [
        command
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in config[key]
        if "ray start" in command
    ]


# --- ray up -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLUSTER_FILES)
def test_cluster_file_fits_the_schema_of_the_installed_ray(name):
    schema = Path(find_spec("ray").origin).parent / "autoscaler/ray-schema.json"
    jsonschema.validate(cluster_file(name), json.loads(schema.read_text()))


@pytest.mark.parametrize("name", CLUSTER_FILES)
@pytest.mark.parametrize("key", COMMAND_LISTS)
def test_commands_are_explicit_and_valid_bash(name, key):
    commands = cluster_file(name)[key]  # Left out, Ray's own defaults would run: another Ray, no authentication.
    for command in commands:
        result = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
        assert result.returncode == 0, f"{command}\n{result.stderr}"


@pytest.mark.parametrize("name", CLUSTER_FILES)
def test_everything_the_package_is_built_from_is_shipped_and_nothing_else(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    files = ["pyproject.toml", "constraints.txt", project["project"]["readme"], *project["project"]["license-files"]]
    assert cluster_file(name)["file_mounts"] == {f"{REMOTE_PROJECT}/{path}": path for path in [*files, *packages]}
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    for package in packages:
        assert f"COPY {package} {package}\n" in dockerfile


@pytest.mark.parametrize("name", CLUSTER_FILES)
def test_nodes_install_what_constraints_pin_into_one_python(name):
    config = cluster_file(name)
    (install,) = [command for command in config["setup_commands"] if "pip install" in command]
    assert "-c constraints.txt -e ." in install
    (environment,) = [command for command in config["setup_commands"] if "uv venv" in command]
    assert "--python 3.11" in environment
    everything = "\n".join(command for key in COMMAND_LISTS for command in config[key])
    assert not re.search(r"ray\[|ray==|\.whl", everything), "Ray's version has one source: constraints.txt"


def test_own_machines_are_set_up_as_aws_ones_are():
    aws, local = cluster_file("aws"), cluster_file("local")
    assert [c for c in aws["setup_commands"] if "apt" not in c] == local["setup_commands"]
    assert set(local["head_setup_commands"]) < set(aws["head_setup_commands"])
    assert aws["cluster_synced_files"] == local["cluster_synced_files"] == ["~/.ray/auth_token"]


@pytest.mark.parametrize("name", CLUSTER_FILES)
def test_every_start_command_turns_the_token_on(name):
    commands = start_commands(cluster_file(name))
    assert len(commands) == 2
    for command in commands:
        assert command.startswith(". ~/hdqnn-rl/cluster/node.sh; ")


def test_node_environment_has_the_token_and_time_to_save(tmp_path):
    (tmp_path / ".hdqnn-rl.env").write_text("SECRET_OF_THIS_NODE='a b'\n")
    shell = f". {ROOT}/cluster/node.sh && env"
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(["bash", "-c", shell], env=environment, capture_output=True, text=True, check=True)
    values = dict(line.split("=", 1) for line in result.stdout.splitlines() if "=" in line)
    assert values["RAY_AUTH_MODE"] == "token"
    assert int(values["RAY_JOB_STOP_WAIT_TIME_S"]) >= 60
    assert values["HDQNN_HOME"] == f"{tmp_path}/hdqnn-rl"
    assert values["QPU_JOURNAL_DIR"] == f"{tmp_path}/hdqnn-rl/runs/ibm-journal"
    assert values["PATH"].startswith(f"{tmp_path}/hdqnn-rl/.venv/bin:")
    assert values["SECRET_OF_THIS_NODE"].split() == ["a", "b"]
    assert "OMP_NUM_THREADS" not in values


@pytest.mark.parametrize("name", CLUSTER_FILES)
def test_head_makes_a_private_token_once(name, tmp_path):
    (command,) = [c for c in cluster_file(name)["head_setup_commands"] if "auth_token" in c]
    command = command.replace("~/hdqnn-rl/.venv/bin/python", sys.executable)
    tokens = []
    for _ in range(2):
        subprocess.run(["bash", "-c", command], env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, check=True)
        token = tmp_path / ".ray/auth_token"
        assert token.stat().st_mode & 0o777 == 0o600
        tokens.append(token.read_text())
    assert re.fullmatch(r"[0-9a-f]{64}", tokens[0])
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("name", CLUSTER_FILES)
def test_dashboard_listens_on_the_loopback_address(name):
    (head,) = [command for command in start_commands(cluster_file(name)) if "--head" in command]
    assert "--dashboard-host=127.0.0.1 " in head
    assert f"--port={RAY_PORT} " in head


def test_image_is_pinned_on_every_aws_node_and_metadata_needs_a_session():
    for node_type in cluster_file("aws")["available_node_types"].values():
        node = node_type["node_config"]
        assert re.fullmatch(r"ami-[0-9a-f]{17}", node["ImageId"])
        assert node["MetadataOptions"]["HttpTokens"] == "required"
        assert all(disk["Ebs"]["Encrypted"] for disk in node["BlockDeviceMappings"])


def test_whatever_must_not_vanish_is_on_demand_and_actors_are_spot():
    config = cluster_file("aws")
    types = config["available_node_types"]
    market = {name: t["node_config"].get("InstanceMarketOptions", {}).get("MarketType") for name, t in types.items()}
    assert market[config["head_node_type"]] is None
    for name, node_type in types.items():
        assert ("hdqnn_actor" in node_type["resources"]) == (market[name] == "spot")
        assert ("hdqnn_service" in node_type["resources"]) == (market[name] is None)
    assert types[config["head_node_type"]]["max_workers"] == 0
    assert sum(t["min_workers"] for t in types.values()) <= config["max_workers"]


def test_own_machines_offer_both_kinds_of_place():
    head, worker = start_commands(cluster_file("local"))
    offered = [json.loads(re.search(r"--resources='(.*)'$", command).group(1)) for command in (head, worker)]
    assert offered[0].keys() == {"hdqnn_service"}
    assert offered[1].keys() == {"hdqnn_service", "hdqnn_actor"}
    assert "RAY_enable_autoscaler_v2=0 ray start --head " in head, "version 2 never starts the workers"


def test_ssh_is_closed_to_the_world_after_the_setup_of_an_aws_head():
    config = cluster_file("aws")
    assert config["head_setup_commands"][-1].endswith("-m cluster.aws_firewall")
    assert "0.0.0.0/0" not in json.dumps(config)
    assert config["provider"]["cache_stopped_nodes"] is False


# --- containers -------------------------------------------------------------------------------------------------------


def test_image_is_built_from_constraints_and_runs_as_a_plain_user():
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    assert set(bases) == {"python:3.11-slim-bookworm"}
    assert re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE) == ["1000:1000"]
    assert "-c constraints.txt -r pyproject.toml" in dockerfile
    assert 'ENTRYPOINT ["hdqnn"]' in dockerfile
    assert "RAY_AUTH_MODE=token" in dockerfile
    node = (ROOT / "cluster/node.sh").read_text()
    for name in ("RAY_AUTH_MODE", "RAY_JOB_STOP_WAIT_TIME_S", "RAY_USAGE_STATS_ENABLED"):
        assert re.search(rf"{name}=(\w+)", dockerfile).group(1) == re.search(rf"{name}=(\w+)", node).group(1)


def test_compose_gives_every_node_the_token_and_publishes_to_this_machine_alone():
    services = compose()["services"]
    for name in ("head", "actor", "train"):
        assert services[name]["environment"]["RAY_AUTH_MODE"] == "token"
        assert services[name]["environment"]["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    head = services["head"]["command"]
    assert f"--port={RAY_PORT}" in head
    assert '--resources={"hdqnn_service":1000}' in head
    assert '--resources={"hdqnn_actor":1000}' in services["actor"]["command"]


def test_compose_escapes_what_the_shell_in_the_container_is_to_expand():
    text = (ROOT / "deploy/compose.yaml").read_text()
    uncommented = re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
    assert not re.search(r"(?<!\$)\$(?![${])", uncommented)


def test_replay_server_has_a_password_keeps_everything_and_leaves_ray_its_port():
    settings = dict(
        line.split(" ", 1)
        for line in (ROOT / "deploy/redis.conf").read_text().splitlines()
        if line and not line.startswith("#")
    )
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["appendonly"] == "yes"
    assert int(settings["port"]) != RAY_PORT
    valkey = compose()["services"]["valkey"]
    assert "requirepass $$VALKEY_PASSWORD" in valkey["entrypoint"][-1]
    assert valkey["environment"]["VALKEY_PASSWORD"].startswith("${VALKEY_PASSWORD:?")
    assert f"@valkey:{settings['port']}/" in compose()["services"]["head"]["environment"]["REDIS_URL"]


def test_rayjob_runs_the_pinned_ray_with_a_token_as_a_plain_user_and_ends():
    spec = rayjob()["spec"]
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == constraint("ray")
    assert cluster["authOptions"] == {"mode": "token"}
    assert spec["shutdownAfterJobFinishes"] is True
    assert "hdqnn train" in spec["entrypoint"]
    head, *workers = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert head["rayStartParams"]["num-cpus"] == "0"
    offered = [json.loads(json.loads(group["rayStartParams"]["resources"])) for group in workers]
    assert [list(resources) for resources in offered] == [["hdqnn_service"], ["hdqnn_actor"]]
    for group in (head, *workers):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    (redis,) = head["template"]["spec"]["containers"][0]["env"]
    assert redis["valueFrom"]["secretKeyRef"]["optional"] is True


# --- all --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", OUR_FILES, ids=lambda path: path.name)
def test_no_file_holds_a_secret(path):
    text = path.read_text()
    assert not re.search(r"AKIA[0-9A-Z]{16}|aws_secret|BEGIN [A-Z ]*PRIVATE KEY", text)
    for value in re.findall(r"(?im)^\s*[\w-]*(?:token|password|requirepass)[\w-]*\s*[:=]\s*(\S+)", text):
        # Whatever follows is a reference or a mode, not a value.
        assert value.startswith(("${", "$$", "#", "&", "*", "token", "{")), f"{path.name}: {value}"


@pytest.mark.parametrize("path", OUR_FILES, ids=lambda path: path.name)
def test_every_uv_and_ray_version_is_the_same_one(path):
    text = path.read_text()
    assert set(re.findall(r"astral\.sh/uv/([\d.]+)/|\buv==([\d.]+)", text)) <= {("0.13.8", ""), ("", "0.13.8")}
    assert set(re.findall(r"rayproject/ray:([\d.]+)|rayVersion: \"([\d.]+)\"", text)) <= {("", constraint("ray"))}
