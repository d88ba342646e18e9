"""That runs on clusters have what IBM hardware needs: the account, every setting, and a journal and budget that last.

The driver signs in before it starts anything, and QPU workers of a device are on its node: both are on the head.
"""

import re
from pathlib import Path

from cluster.submit import FORWARDED_VARIABLES
from tests.architecture.test_cluster_files import ROOT, compose, rayjob

IBM_SOURCES = "".join((ROOT / "qpu_service/ibm" / name).read_text() for name in ("config.py", "connect.py"))
ACCOUNT = set(re.findall(r'"(QISKIT_IBM_[A-Z_]+)"', IBM_SOURCES))
SETTINGS = set(re.findall(r'"(QPU_[A-Z_]+)"', IBM_SOURCES)) - {"QPU_JOURNAL_DIR"} | {"QPU_BACKEND"}


def test_the_names_of_all_variables_are_found_and_told():
    assert {"QISKIT_IBM_TOKEN", "QISKIT_IBM_INSTANCE"} < ACCOUNT
    assert {"QPU_BUDGET_SECONDS", "QPU_BUDGET_JOBS", "QPU_DEADLINE_SECONDS", "QPU_MODE"} < SETTINGS
    table = (ROOT / "docs/ibm.md").read_text()
    for name in ACCOUNT | SETTINGS | {"QPU_JOURNAL_DIR"}:
        assert f"`{name}`" in table or name == "QPU_BACKEND", name


def test_a_job_is_given_every_setting_of_the_device_and_no_secret():
    assert set(FORWARDED_VARIABLES) == SETTINGS


def journal_of_the_image() -> Path:
    (path,) = re.findall(r"QPU_JOURNAL_DIR=(\S+)", (ROOT / "deploy/Dockerfile").read_text())
    return Path(path)


def test_compose_takes_the_account_from_the_environment_and_keeps_journal_and_budget():
    services = compose()["services"]
    head = services["head"]
    assert {name for name, value in head["environment"].items() if value is None} == ACCOUNT
    assert {name for name, value in services["train"]["environment"].items() if value is None} == SETTINGS
    assert not (ACCOUNT | SETTINGS) & services["actor"]["environment"].keys()
    assert "QPU_JOURNAL_DIR" not in head["environment"]
    (mount,) = head["volumes"]
    volume, path = mount.split(":")
    assert volume in compose()["volumes"]
    assert journal_of_the_image().is_relative_to(path)


def test_kubernetes_gives_account_and_settings_to_the_head_alone_and_keeps_journal_and_budget():
    cluster = rayjob()["spec"]["rayClusterSpec"]
    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    assert head["envFrom"] == [{"secretRef": {"name": "hdqnn-rl-ibm", "optional": True}}]
    assert [entry["name"] for entry in head["env"]] == ["REDIS_URL"]
    (mount,) = head["volumeMounts"]
    (volume,) = cluster["headGroupSpec"]["template"]["spec"]["volumes"]
    assert volume["name"] == mount["name"]
    assert "persistentVolumeClaim" in volume
    assert journal_of_the_image().is_relative_to(mount["mountPath"])
    for group in cluster["workerGroupSpecs"]:
        (worker,) = group["template"]["spec"]["containers"]
        assert not worker.keys() & {"env", "envFrom"}
