"""Data that many tests share."""

from pathlib import Path

import pytest

from jepa_pretrain.data.demo import demo


def pytest_collection_modifyitems(items):
    """Environments last: some of their packages start threads, and a process that is forked beside threads may hang."""
    items.sort(key=lambda item: item.path.relative_to(Path(__file__).parent).parts[0] in ("acting", "agent"))


@pytest.fixture(scope="session")
def demo_shards(tmp_path_factory):
    """A folder with 96 + 40 demo pictures."""
    folder = tmp_path_factory.mktemp("demo")
    demo(str(folder), train=96, val=40)
    return folder
