"""The set-up, test, CI and quickstart scripts, run with stand-ins for what they call."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from stand_ins import ROOT, Checkout, fake_python, script

SCRIPTS = sorted([*ROOT.glob("scripts/**/*.sh"), *ROOT.glob("scripts/slurm/*.sbatch"), ROOT / ".ci" / "run"])


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shell_reads_it(path: Path):
    result = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    if shutil.which("shellcheck"):
        result = subprocess.run(["shellcheck", str(path)], capture_output=True, text=True)
        assert result.returncode == 0, result.stdout


def test_scripts_that_are_called_by_name_are_executable():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_setup_says_what_is_missing_without_a_recent_python(checkout: Checkout):
    fake_python(checkout.bin / "python3", "3.9")
    result = checkout.run("scripts/setup.sh")
    assert result.returncode == 1
    assert "no Python 3.11 or newer" in result.stderr and "Python 3.9" in result.stderr
    assert not (checkout.root / ".venv").exists()


def test_setup_says_when_the_venv_module_is_missing(checkout: Checkout):
    fake_python(checkout.bin / "python3", "3.11", broken="ensurepip")
    result = checkout.run("scripts/setup.sh")
    assert result.returncode == 1
    assert "python3-venv" in result.stderr


def test_setup_passes_over_launchers_of_absent_pythons(checkout: Checkout):
    fake_python(checkout.bin / "python3", "3.9")
    script(checkout.bin / "python3.13", "#!/usr/bin/env bash\nexit 127\n")
    fake_python(checkout.bin / "python3.12", "3.12")
    result = checkout.run("scripts/setup.sh")
    assert result.returncode == 0, result.stderr
    assert "with Python 3.12" in result.stdout


def test_setup_refuses_an_old_python_that_was_asked_for(checkout: Checkout):
    fake_python(checkout.bin / "python3", "3.12")
    fake_python(checkout.bin / "old", "3.10")
    result = checkout.run("scripts/setup.sh", PYTHON="old")
    assert result.returncode == 1
    assert "PYTHON=old" in result.stderr


def test_setup_installs_once(checkout: Checkout):
    fake_python(checkout.bin / "python3", "3.11")
    assert checkout.run("scripts/setup.sh", "dev").returncode == 0
    installs = [line for line in checkout.calls() if "pip install" in line]
    assert installs[-1].endswith("torch torchvision -e .[dev]")  # one command, or pip may pick a pair that does not fit
    for extras in ["dev", ""]:
        assert "up to date" in checkout.run("scripts/setup.sh", extras).stdout
    assert checkout.calls() == []
    assert checkout.run("scripts/setup.sh", "video").returncode == 0
    assert checkout.calls()[-1].endswith("-e .[video]")
    (checkout.root / "pyproject.toml").write_text("[project]\nname = 'y'\n")
    assert checkout.run("scripts/setup.sh").returncode == 0
    assert checkout.calls()[-1].endswith("-e .")


def test_setup_that_failed_starts_again(checkout: Checkout):
    fake_python(checkout.bin / "python3", "3.11", broken="torchvision.ops.nms")
    first = checkout.run("scripts/setup.sh")
    assert first.returncode == 1
    assert "do not fit each other" in first.stderr
    assert "up to date" not in checkout.run("scripts/setup.sh").stdout


def test_setup_never_clears_a_folder_of_something_else(checkout: Checkout):
    fake_python(checkout.bin / "python3", "3.11")
    precious = checkout.root / "home" / "thesis.tex"
    precious.parent.mkdir()
    precious.write_text("years")
    result = checkout.run("scripts/setup.sh", VENV=str(precious.parent))
    assert result.returncode == 1
    assert "neither empty nor a virtual environment" in result.stderr
    assert precious.read_text() == "years"


def check(checkout: Checkout, failing: str = "") -> tuple[int, list[str]]:
    """Run test.sh with stand-ins for its tools, `failing` among them."""
    fake_python(checkout.bin / "python3", "3.11")
    for tool in ["ruff", "lint-imports"]:
        checkout.stand_in(tool, checkout.root / ".venv" / "bin", status=int(tool == failing))
    fake_python(checkout.root / ".venv" / "bin" / "python", "3.11")
    result = checkout.run("scripts/test.sh", "tests/data", "-k", "order")
    return result.returncode, checkout.calls()


def test_tests_come_last_and_take_the_arguments(checkout: Checkout):
    status, calls = check(checkout)
    assert status == 0
    assert calls[-4:] == [
        "ruff check .",
        "ruff format --check .",
        "lint-imports --no-cache",
        "python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/data -k order",
    ]


def test_a_failing_check_fails_the_tests(checkout: Checkout):
    assert check(checkout, failing="lint-imports")[0] != 0


@pytest.mark.parametrize("status", [0, 3])
def test_ci_uses_a_fresh_environment_and_removes_it(checkout: Checkout, tmp_path: Path, status: int):
    body = f'mkdir -p "$VENV" && echo "${{PYTHONPATH:-none}} $VENV $*" >> "$LOG"; exit {status}'
    script(checkout.root / "scripts" / "test.sh", body)
    result = checkout.run(".ci/run", "-x", TMPDIR=str(tmp_path), PYTHONPATH="/somewhere", VENV="/mine")
    assert result.returncode == status
    (call,) = checkout.calls()
    pythonpath, venv, arguments = call.split(" ")
    assert (pythonpath, arguments) == ("none", "-x")
    assert venv.startswith(f"{tmp_path}/jepa-ci.")
    assert not Path(venv).parent.exists()


FAKE_JEPA = """#!/usr/bin/env bash
echo "$*" >> "$LOG"
case "$*" in @FAILING@*) exit 1 ;; esac
while [ $# -gt 1 ]; do
  if [ "$1" = --out ]; then mkdir -p "${2%/*}"; touch "$2"; fi
  shift
done
"""


def quickstart(checkout: Checkout, failing: str = "nothing") -> tuple[int, list[str]]:
    """Run quickstart.sh with stand-ins, the command `failing` among them; status and the commands of jepa-pretrain."""
    fake_python(checkout.bin / "python3", "3.11")
    fake_python(checkout.root / ".venv" / "bin" / "python", "3.11")
    script(checkout.root / ".venv" / "bin" / "jepa-pretrain", FAKE_JEPA.replace("@FAILING@", f'"{failing}"'))
    result = checkout.run("scripts/quickstart.sh")
    return result.returncode, [call for call in checkout.calls() if not call.startswith("python -m pip")]


def test_quickstart_measures_both_methods_beside_their_baselines(checkout: Checkout):
    status, calls = quickstart(checkout)
    assert status == 0
    for method in ["vicreg", "ijepa"]:
        run = f"runs/quickstart/{method}"
        assert f"fit --config recipes/demo/{method}.yaml --run {run}" in calls
        for encoder in [f"{run}/export", f"random:{run}/export", "pixels"]:
            for protocol in ["linear", "knn"]:
                wanted = f"eval {protocol} {encoder} data/demo/train-*.tar data/demo/val-*.tar --out "
                assert [call for call in calls if call.startswith(wanted)], wanted
        assert f"report {run}" in calls
        results = sorted(path.stem for path in (checkout.root / run / "eval").iterdir())
        assert results == [f"{p}-{name}" for p in ["knn", "linear"] for name in ["pixels", "trained", "untrained"]]
    assert calls[-1] == "python scripts/summary.py runs/quickstart"


@pytest.mark.parametrize("failing", ["shards demo", "fit", "eval knn random:", "report"])
def test_quickstart_fails_where_a_step_fails(checkout: Checkout, failing: str):
    status, calls = quickstart(checkout, failing)
    assert status != 0
    assert calls[-1].startswith(failing)


def test_quickstart_again_starts_clean_runs(checkout: Checkout):
    old = checkout.root / "runs" / "quickstart" / "vicreg" / "checkpoints" / "last.ckpt"
    mine = checkout.root / "runs" / "mine" / "notes.txt"
    for path in [old, mine]:
        path.parent.mkdir(parents=True)
        path.touch()
    assert quickstart(checkout)[0] == 0
    assert not old.exists()
    assert mine.exists()
