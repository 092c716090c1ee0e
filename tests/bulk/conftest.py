"""A bucket in memory."""

import pytest


@pytest.fixture
def bucket():
    import fsspec

    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()
