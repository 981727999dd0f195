"""Data that many tests share."""

import pytest

from jepa_pretrain.data.demo import demo


@pytest.fixture(scope="session")
def demo_shards(tmp_path_factory):
    """A folder with 96 + 40 demo pictures."""
    folder = tmp_path_factory.mktemp("demo")
    demo(str(folder), train=96, val=40)
    return folder
