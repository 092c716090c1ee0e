"""A file system in memory that stands in for a bucket."""

import pytest


@pytest.fixture
def bucket():
    import fsspec

    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()
