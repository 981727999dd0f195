"""A copy of the scripts in which python, srun and jepa-pretrain are stand-ins that write down how they were called."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = [
    "bash", "env", "cat", "cksum", "cp", "cut", "dirname", "basename", "head", "ls", "mkdir", "mktemp", "rm", "touch",
]  # fmt: skip

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
        for tool in TOOLS:
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
