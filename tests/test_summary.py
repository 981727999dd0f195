"""The table at the end of the quickstart."""

import json
import subprocess
import sys
from pathlib import Path

from stand_ins import ROOT


def summary(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "summary.py"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_each_number_stands_in_its_place(tmp_path: Path):
    top1 = {}
    for number, (run, name, protocol) in enumerate(
        (run, name, protocol)
        for run in ["ijepa", "vicreg"]
        for name in ["pixels", "untrained", "trained"]
        for protocol in ["linear", "knn"]
    ):
        file = tmp_path / run / "eval" / f"{protocol}-{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        top1[run, name, protocol] = 20.0 + number
        file.write_text(json.dumps({"top1": 20.0 + number, "interval": [19.0 + number, 21.0 + number]}))
        (tmp_path / run / "export").mkdir(exist_ok=True)
        (tmp_path / run / "report.html").touch()
    result = summary(tmp_path)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert max(len(line) for line in lines if "│" in line) <= 80
    for run in ["ijepa", "vicreg"]:
        for name, words in [("untrained", "untrained"), ("trained", "pretrained")]:
            (row,) = [line for line in lines if f"{run}, {words}" in line]
            linear, knn = top1[run, name, "linear"], top1[run, name, "knn"]
            assert row.index(f"{linear:.1f}  ({linear - 1:.1f}-{linear + 1:.1f})") < row.index(f"{knn:.1f}  (")
        assert any(line.endswith(f"{run}/export") for line in lines)
        assert any(line.endswith(f"{run}/report.html") for line in lines)
    assert len([line for line in lines if "raw pixels" in line]) == 1


def test_the_agent_has_a_table_of_its_own(tmp_path: Path):
    eval_folder = tmp_path / "rooms" / "eval"
    eval_folder.mkdir(parents=True)
    (tmp_path / "run" / "export").mkdir(parents=True)
    for protocol in ["linear", "knn"]:
        for name in ["pixels", "untrained", "trained"]:
            file = tmp_path / "run" / "eval" / f"{protocol}-{name}.json"
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps({"top1": 1.0, "interval": [0.0, 2.0]}))
    for number, name in enumerate(["random", "expert", "planner"]):
        told = {"success": 50.0 + number, "interval": [40.0, 60.0]}
        (eval_folder / f"{name}.json").write_text(json.dumps({"success": {"all": told}, "ms_per_action": 7.0 + number}))
    result = summary(tmp_path)
    assert result.returncode == 0, result.stderr
    for number, words in enumerate(["random", "scripted", "planner with critic"]):
        (row,) = [line for line in result.stdout.splitlines() if words in line and "│" in line]
        assert f"{50.0 + number}  (40.0-60.0)" in row and f"{7.0 + number:.2f}" in row
    assert "rooms/page/episode.html" in result.stdout


def test_no_run_is_an_error(tmp_path: Path):
    result = summary(tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("error: no run")
