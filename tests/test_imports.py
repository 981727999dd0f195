"""The import rules: what `pyproject.toml` says, and what really lands in `sys.modules`."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# wandb is missing here: timm imports it, where it is installed; that we do not is tested below.
TRAINING_ONLY = {"lightning", "pytorch_lightning", "lightning_fabric", "webdataset", "jsonargparse"}


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run a piece of code in an interpreter that has imported nothing yet."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the package in `folder` against the rules in its `pyproject.toml`."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120)


def test_arrows_point_down():
    pytest.importorskip("importlinter")
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "line", "rule"),
    [
        ("contracts.py", "import jepa_pretrain.models", "arrows point down"),
        ("models/stray.py", "from lightning.pytorch import Trainer", "need no trainer and no loader"),
        ("evals/stray.py", "import lightning", "evaluation needs no trainer"),
        ("methods/stray.py", "import jepa_pretrain.data", "methods and data meet in Batch alone"),
        ("agent/stray.py", "import webdataset", "plans without trainer, loader and plots"),
        ("data/stray.py", "import timm", "knows nothing of models"),
        ("callbacks/stray.py", "import wandb", "wandb is an entry in a recipe"),
        ("stray.py", "import torch", "arrows point down"),
    ],
)
def test_rules_notice(tmp_path: Path, module: str, line: str, rule: str):
    """Rules that no file could break would be no rules: break each, in a skeleton of the package."""
    pytest.importorskip("importlinter")
    for file in (ROOT / "jepa_pretrain").rglob("*.py"):
        copy = tmp_path / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text("")
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    assert lint(tmp_path).returncode == 0
    (tmp_path / "jepa_pretrain" / module).write_text(line)
    result = lint(tmp_path)
    assert result.returncode != 0
    assert [found for found in result.stdout.splitlines() if rule in found and "BROKEN" in found], result.stdout


@pytest.mark.parametrize("name", ["FrozenEncoder", "load_agent"])
def test_frozen_encoder_and_agent_import_no_trainer_and_no_loader(name: str):
    result = python(f"import sys; from jepa_pretrain import {name}; print(*sys.modules)")
    assert result.returncode == 0, result.stderr
    loaded = {name.split(".")[0] for name in result.stdout.split()}
    assert "torch" in loaded
    assert not loaded & TRAINING_ONLY


def test_package_alone_is_quick_to_import():
    result = python("import sys, jepa_pretrain; print('torch' in sys.modules, jepa_pretrain.__version__)")
    assert result.stdout.startswith("False"), result.stdout + result.stderr


def test_wandb_is_imported_nowhere():
    for file in (ROOT / "jepa_pretrain").rglob("*.py"):
        assert "import wandb" not in file.read_text(), file
        assert "from wandb" not in file.read_text(), file
