"""The journal: nothing noted is lost, nothing half noted does harm, other workers see it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qpu_service import job_journal
from qpu_service.job_journal import AlreadyIntendedError, JobJournal, circuit_digests
from tests.conformance.circuits import random_circuits


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[JobJournal]:
    opened = JobJournal(tmp_path)
    yield opened
    opened.close()


def lines(directory: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (directory / "jobs.jsonl").read_text().splitlines()]


def test_the_intent_is_on_the_disk_before_anything_else(journal: JobJournal, tmp_path: Path) -> None:
    entry = journal.intend(["d1", "d2"], "ibm_test")
    assert [line["event"] for line in lines(tmp_path)] == ["run", "intended"]
    assert lines(tmp_path)[1]["tag"] == entry.tag
    assert (entry.state, entry.job_id) == ("intended", None)


def test_a_job_goes_through_its_states(journal: JobJournal) -> None:
    tag = journal.intend(["d1"], "ibm_test").tag
    assert journal.submitted(tag, "job-1", "session-1").state == "submitted"
    done = journal.done(tag, 2.5)
    assert (done.state, done.job_id, done.session_id, done.usage_s) == ("done", "job-1", "session-1", 2.5)


def test_another_process_finds_a_circuit_and_its_place(journal: JobJournal, tmp_path: Path) -> None:
    tag = journal.intend(["d1", "d2"], "ibm_test").tag
    journal.submitted(tag, "job-1", None)
    other = JobJournal(tmp_path)
    hit = other.find("d2")
    assert hit is not None
    assert (hit[0].job_id, hit[0].device, hit[1]) == ("job-1", "ibm_test", 1)
    assert other.run_id == journal.run_id
    assert other.find("d3") is None


def test_what_others_append_is_seen_after_a_refresh(journal: JobJournal, tmp_path: Path) -> None:
    other = JobJournal(tmp_path)
    journal.intend(["d1"], "ibm_test")
    assert other.find("d1") is None
    other.refresh()
    assert other.find("d1") is not None


def test_circuits_of_a_failed_job_are_free_again(journal: JobJournal) -> None:
    first = journal.intend(["d1"], "ibm_test")
    journal.failed(first.tag, "because")
    assert journal.find("d1") is None
    second = journal.intend(["d1"], "ibm_test")
    assert second.tag != first.tag
    hit = journal.find("d1")
    assert hit is not None
    assert hit[0].tag == second.tag


def test_a_late_failure_does_not_free_the_circuits_of_the_next_job(journal: JobJournal) -> None:
    first = journal.intend(["d1"], "ibm_test")
    journal.failed(first.tag, "looked up by one worker")
    second = journal.intend(["d1"], "ibm_test")
    journal.failed(first.tag, "looked up by another one, later")
    hit = journal.find("d1")
    assert hit is not None
    assert hit[0].tag == second.tag


def test_a_circuit_is_intended_by_one_worker_at_a_time(journal: JobJournal, tmp_path: Path) -> None:
    other = JobJournal(tmp_path)
    first = journal.intend(["d1", "d2"], "ibm_test")
    with pytest.raises(AlreadyIntendedError, match="another worker measures some of these 2 circuits"):
        other.intend(["d2", "d3"], "ibm_test")
    assert other.find("d2") is not None, "the other one must know the job that it is to wait for"
    assert other.find("d3") is None
    journal.failed(first.tag, "refused")
    assert other.intend(["d2", "d3"], "ibm_test").state == "intended"


def test_devices_do_not_answer_for_each_other_unless_they_may(journal: JobJournal) -> None:
    torino = journal.intend(["d1", "d2"], "ibm_torino")
    assert journal.find("d1", {"ibm_fez"}) is None
    fez = journal.intend(["d1", "d2"], "ibm_fez", {"ibm_fez"})
    assert fez.tag != torino.tag
    for devices, tag in (({"ibm_torino"}, torino.tag), ({"ibm_fez"}, fez.tag), (None, torino.tag)):
        hit = journal.find("d2", devices)
        assert hit is not None
        assert (hit[0].tag, hit[1]) == (tag, 1)
    for devices in ({"ibm_osaka", "ibm_fez"}, None):
        with pytest.raises(AlreadyIntendedError):
            journal.intend(["d2"], "ibm_osaka", devices)
    journal.failed(torino.tag, "because")
    hit = journal.find("d1", None)
    assert hit is not None
    assert hit[0].tag == fez.tag
    assert journal.find("d1", {"ibm_torino"}) is None


def test_tags_of_devices_differ_also_when_earlier_jobs_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_journal, "_REMEMBERED", 1)
    journal = JobJournal(tmp_path)
    tag = journal.intend(["d1"], "ibm_torino").tag
    journal.done(tag, 1.0)
    journal.done(journal.intend(["d2"], "ibm_torino").tag, 1.0)
    assert journal.entry(tag) is None
    assert journal.intend(["d1"], "ibm_fez").tag != tag, "the service would find torino's job by it"


@pytest.mark.parametrize("end", ["ends", "closes", "dies"])
def test_others_see_that_a_job_is_being_submitted_until_its_worker_ends_or_dies(
    journal: JobJournal, tmp_path: Path, end: str
) -> None:
    other = JobJournal(tmp_path)
    tag = journal.intend(["d1"], "ibm_test").tag
    assert other.is_being_submitted(tag)
    assert other.is_being_submitted(tag), "asking must not take the lock away"
    assert not other.is_being_submitted("another-1")
    if end == "ends":
        journal.end_submission(tag)
        journal.end_submission(tag)
    elif end == "closes":
        journal.close()
    else:
        journal._submissions._held.pop(tag).close()  # as the kernel does for a killed process
    assert not other.is_being_submitted(tag)
    assert list((tmp_path / "submitting").iterdir()) == []


def test_half_a_line_is_ignored_and_does_not_swallow_the_next(journal: JobJournal, tmp_path: Path) -> None:
    kept = journal.intend(["d1"], "ibm_test")
    journal.close()
    with (tmp_path / "jobs.jsonl").open("ab") as file:
        file.write(b'{"event": "submitted", "tag": "' + kept.tag.encode())
    reopened = JobJournal(tmp_path)
    entry = reopened.entry(kept.tag)
    assert entry is not None
    assert entry.state == "intended"
    reopened.submitted(kept.tag, "job-1", None)
    last = JobJournal(tmp_path).entry(kept.tag)
    assert last is not None
    assert last.job_id == "job-1"


@settings(max_examples=50, deadline=None)
@given(cut=st.integers(min_value=0, max_value=2_000))
def test_a_journal_cut_anywhere_can_be_continued(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    directory = tmp_path_factory.mktemp("journal")
    journal = JobJournal(directory)
    tags = [journal.intend([f"d{n}"], "ibm_test").tag for n in range(3)]
    for n, tag in enumerate(tags):
        journal.submitted(tag, f"job-{n}", None)
    journal.close()
    path = directory / "jobs.jsonl"
    path.write_bytes(path.read_bytes()[: -cut or None] if cut < path.stat().st_size else b"")
    survived = JobJournal(directory)
    for n in range(3):
        hit = survived.find(f"d{n}")
        assert hit is None or hit[0].job_id in (None, f"job-{n}")
    again = survived.intend(["d9"], "ibm_test")
    assert JobJournal(directory).entry(again.tag) is not None
    assert survived.run_id


def test_a_line_of_nonsense_is_skipped(journal: JobJournal, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (tmp_path / "jobs.jsonl").open("ab") as file:
        file.write(b'nonsense\n{"event": "submitted", "tag": "never-intended", "job_id": "x", "session_id": null}\n')
    tag = journal.intend(["d1"], "ibm_test").tag
    assert journal.entry(tag) is not None
    assert caplog.text.count("damaged line") == 2


def test_old_jobs_are_forgotten_and_open_ones_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_journal, "_REMEMBERED", 3)
    journal = JobJournal(tmp_path)
    first = journal.intend(["open"], "ibm_test")
    for n in range(6):
        journal.done(journal.intend([f"d{n}"], "ibm_test").tag, 1.0)
    assert [hit is not None for n in range(6) for hit in [journal.find(f"d{n}")]] == [False] * 3 + [True] * 3
    assert journal.entry(first.tag) is not None
    assert len(journal.jobs) == 4


def test_a_job_that_ends_long_after_younger_ones_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_journal, "_REMEMBERED", 2)
    journal = JobJournal(tmp_path)
    slow = journal.intend(["slow"], "ibm_test").tag
    for n in range(3):
        journal.done(journal.intend([f"d{n}"], "ibm_test").tag, 1.0)
    assert journal.done(slow, 2.0).usage_s == 2.0
    assert [hit is not None for name in ("slow", "d1", "d2") for hit in [journal.find(name)]] == [True, False, True]
    assert journal.jobs[0].tag == slow


def test_digests_tell_circuits_apart_by_everything_that_matters() -> None:
    circuits = random_circuits(4, 3, 2, shots=5)
    base = circuit_digests(circuits)
    assert len(set(base)) == 4
    angles, pairs, seeds = circuits.angles.copy(), circuits.entangler_pairs.copy(), circuits.seeds.copy()
    angles[1, 0, 0, 0] += 1e-6
    pairs[2, 0, 0] = (pairs[2, 0, 0] + 1) % 3
    seeds[3] += np.uint64(1)
    changed = circuit_digests(replace(circuits, angles=angles, entangler_pairs=pairs, seeds=seeds))
    assert [a == b for a, b in zip(base, changed, strict=True)] == [True, False, False, False]
    assert not set(base) & set(circuit_digests(replace(circuits, shots=6)))


def test_digests_do_not_depend_on_the_rest_of_the_batch() -> None:
    circuits = random_circuits(4, 3, 2)
    part = replace(
        circuits, angles=circuits.angles[2:], entangler_pairs=circuits.entangler_pairs[2:], seeds=circuits.seeds[2:]
    )
    assert circuit_digests(part) == circuit_digests(circuits)[2:]
