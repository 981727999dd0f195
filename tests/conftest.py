"""Data that many tests share."""

from pathlib import Path

import pytest

from jepa_pretrain.data.demo import demo

THREADED = ("interop", "acting", "agent")  # tests of these folders come last, in this order


def pytest_collection_modifyitems(items):
    """Packages of others start threads in there, and a process that is forked beside threads may hang."""
    folders = {name: place for place, name in enumerate(THREADED, start=1)}
    items.sort(key=lambda item: folders.get(item.path.relative_to(Path(__file__).parent).parts[0], 0))


@pytest.fixture(scope="session")
def demo_shards(tmp_path_factory):
    """A folder with 96 + 40 demo pictures."""
    folder = tmp_path_factory.mktemp("demo")
    demo(str(folder), train=96, val=40)
    return folder
