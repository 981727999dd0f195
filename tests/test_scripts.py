"""The shell scripts, run with stand-ins for python, srun and jepa-pretrain that write down how they were called."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted([*ROOT.glob("scripts/**/*.sh"), *ROOT.glob("scripts/slurm/*.sbatch"), ROOT / ".ci" / "run"])
TOOLS = [
    "bash",
    "env",
    "cat",
    "cksum",
    "cut",
    "dirname",
    "basename",
    "head",
    "ls",
    "mkdir",
    "mktemp",
    "rm",
    "touch",
    "date",
]

# Answers as Python does: version probes, `-m venv`, code holding @BROKEN@ fails; the rest is written down.
FAKE_PYTHON = """#!/usr/bin/env bash
case "$1 ${2:-}" in
  "-c "*version_info*) exit @OLD@ ;;
  "-c "*@BROKEN@*) exit 1 ;;
  "-c "*) exit 0 ;;
  --version*) echo "Python @VERSION@" ;;
  "-m venv") mkdir -p "${@: -1}/bin"; touch "${@: -1}/pyvenv.cfg"; cp "$0" "${@: -1}/bin/python" ;;
  *) echo "python $*" >> "$LOG" ;;
esac
"""


def script(path: Path, body: str) -> None:
    """Write an executable stand-in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(body)
    path.chmod(0o755)


def fake_python(path: Path, version: str, broken: str = "nothing") -> None:
    old = str(int(tuple(map(int, version.split("."))) < (3, 11)))
    script(path, FAKE_PYTHON.replace("@OLD@", old).replace("@VERSION@", version).replace("@BROKEN@", broken))


class Checkout:
    """A copy of the scripts, and a PATH that holds the shell's tools and the stand-ins alone."""

    def __init__(self, folder: Path):
        self.root = folder / "checkout"
        self.bin = folder / "bin"
        self.log = folder / "log"
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        shutil.copytree(ROOT / ".ci", self.root / ".ci")
        (self.root / "pyproject.toml").write_text("[project]\nname = 'x'\n")
        self.bin.mkdir()
        for tool in [*TOOLS, "cp"]:
            (self.bin / tool).symlink_to(shutil.which(tool))

    def stand_in(self, name: str, folder: Path | None = None, status: int = 0) -> None:
        """A command that writes down its name and arguments."""
        script((folder or self.bin) / name, f'#!/usr/bin/env bash\necho "{name} $*" >> "$LOG"\nexit {status}\n')

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": str(self.bin), "LOG": str(self.log), "HOME": str(self.root), **environment}
        return subprocess.run(["bash", *command], cwd=self.root, env=env, capture_output=True, text=True, timeout=60)

    def calls(self) -> list[str]:
        """What the stand-ins wrote down since the last time."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines


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
        "python -m pytest tests/data -k order",
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


SLURM = {"SLURM_NNODES": "4", "SLURM_NTASKS_PER_NODE": "8", "SLURM_CPUS_PER_TASK": "12", "SLURM_JOB_ID": "7"}
RECIPE = "recipes/ijepa_vith14_in1k.yaml"


def pretrain(checkout: Checkout, *arguments: str, **environment: str) -> str:
    """The one command that pretrain.sbatch would start."""
    checkout.stand_in("srun")
    result = checkout.run("scripts/slurm/pretrain.sbatch", *arguments, **SLURM, **environment)
    assert result.returncode == 0, result.stderr
    (call,) = checkout.calls()
    return call


def test_pretrain_job_starts_one_task_for_each_gpu(checkout: Checkout):
    call = pretrain(checkout, RECIPE, "--data.train", "/shards/train-*.tar")
    assert f"jepa-pretrain fit --config {RECIPE}" in call
    assert "--trainer.devices 8 --trainer.num_nodes 4" in call
    assert call.endswith("--run runs/ijepa_vith14_in1k --ckpt_path last --data.train /shards/train-*.tar")


def test_pretrain_job_fails_as_its_tasks_do(checkout: Checkout):
    checkout.stand_in("srun", status=3)
    assert checkout.run("scripts/slurm/pretrain.sbatch", RECIPE, **SLURM).returncode == 3


def test_pretrain_job_asks_to_be_requeued_and_waits_for_its_tasks(checkout: Checkout):
    """The signal reaches the script while its tasks run; they end on their own time."""
    checkout.stand_in("scontrol")
    checkout.stand_in("srun")
    busy = 'until [ -e "$HOME/enough" ]; do read -rt 0.05 <> <(:) || :; done; echo finished >> "$LOG"'
    script(checkout.bin / "srun", f'#!/usr/bin/env bash\necho started >> "$LOG"\n{busy}\n')
    env = {"PATH": str(checkout.bin), "LOG": str(checkout.log), "HOME": str(checkout.root), **SLURM}
    with subprocess.Popen(["bash", "scripts/slurm/pretrain.sbatch", RECIPE], cwd=checkout.root, env=env) as job:
        wait_for(checkout.log, "started")
        job.send_signal(signal.SIGUSR1)
        wait_for(checkout.log, "scontrol requeue 7")
        assert job.poll() is None
        (checkout.root / "enough").touch()
        assert job.wait(timeout=20) == 0
    assert checkout.calls()[-1] == "finished"


def wait_for(log: Path, line: str) -> None:
    """Until a stand-in has written this line."""
    end = time.monotonic() + 20
    while not (log.exists() and line in log.read_text().splitlines()):
        assert time.monotonic() < end, f"{line!r} was never written"
        time.sleep(0.02)


def test_pretrain_job_is_sent_with_what_a_requeue_needs():
    directives = [
        line for line in (ROOT / "scripts/slurm/pretrain.sbatch").read_text().splitlines() if line.startswith("#SBATCH")
    ]
    assert "#SBATCH --requeue" in directives
    assert "#SBATCH --signal=B:SIGUSR1@120" in directives
    asked = dict(line.removeprefix("#SBATCH --").split("=", 1) for line in directives if "=" in line)
    assert asked["gpus-per-node"] == asked["ntasks-per-node"]


def test_pack_job_packs_its_part(checkout: Checkout):
    checkout.stand_in("srun")
    task = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "16"}
    result = checkout.run("scripts/slurm/pack.sbatch", "/pictures", "/shards", "--split", "val", **task)
    assert result.returncode == 0, result.stderr
    assert checkout.calls() == ["srun jepa-pretrain shards pack /pictures /shards --part 4/16 --workers 8 --split val"]


def test_pack_job_sent_again_alone_keeps_its_part(checkout: Checkout):
    checkout.stand_in("srun")
    task = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "1"}
    assert checkout.run("scripts/slurm/pack.sbatch", "/pictures", "/shards", **task).returncode == 2
    assert checkout.calls() == []
    assert checkout.run("scripts/slurm/pack.sbatch", "/pictures", "/shards", PARTS="16", **task).returncode == 0
    assert "--part 4/16" in checkout.calls()[0]
