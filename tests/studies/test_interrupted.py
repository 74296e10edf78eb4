"""What an interrupted grid prints of its finished runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from rib.studies.benchmark_actions import _show_finished
from tests.support.suite_store import add_run, suite


def test_it_names_no_file_since_it_writes_none(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    pets = suite("pets", "Pets", {"photo": "Photographs", "cut": "Cut-outs of paper, glued", "web": "Web"}, 7, "web")
    results = [add_run(tmp_path, pets, s, m) for s in ("photo", "cut") for m in ("finetune", "ewc")]
    plan: Any = SimpleNamespace(wanted=[SimpleNamespace(run=run, metrics=m) for run, m in results])
    _show_finished(plan)
    text = capsys.readouterr().out
    assert "runs.csv" not in text
    assert "Web %" in text  # a column that a report would leave out here
    assert "seconds" in text
