"""The page's table is the JSON and nothing else; everything around it stays."""

import pytest

from benchmarks.faults import run
from benchmarks.faults.table import render, write_into

ROW = {
    "fault": "kill -9 of a thing",
    "repeats": 5.0,
    "acknowledged": 1234.0,
    "lost": 0.0,
    "duplicated": 2.0,
    "recovery_p50_s": 0.5,
    "recovery_p95_s": 7.0,
    "window_s": 5.0,
    "throughput_lost_percent": 12.3,
}
EMPTIED = {"fault": "empty", "repeats": 1.0, "silent": 0.0, "recovery_p50_s": 1.0, "recovery_p95_s": 2.0}


def test_a_row_says_what_was_counted_and_how_to_count_again():
    (row,) = render({"kill-thing": ROW, "everything": {}}).splitlines()[2:]
    assert row == "| kill -9 of a thing | 5 | 1,234 | 0 | 2 | 0.50 s / 7.00 s | 12 % of 5 s | `kill-thing` |"


def test_a_process_that_went_on_silently_is_told():
    assert "every process ends: 1.00 s / 2.00 s" in render({"empty-server": EMPTIED})
    assert "3 processes went on silently" in render({"empty-server": {**EMPTIED, "silent": 3.0}})


def test_only_what_stands_between_the_marks_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- faults: start -->\nold\n<!-- faults: end -->\nafter\n")
    for _ in range(2):
        write_into(page, {"kill-thing": ROW})
    text = page.read_text()
    assert text.startswith("before\n<!-- faults: start -->\n| fault |")
    assert text.endswith("|\n<!-- faults: end -->\nafter\n")
    assert "old" not in text


def test_a_page_without_marks_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing here")
    with pytest.raises(ValueError, match="must have the lines"):
        write_into(page, {})
    assert page.read_text() == "nothing here"


def test_unknown_faults_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown faults \['flood'\].*kill-actor.*empty-server.*run-kill-learner"):
        run(only=["flood"])
