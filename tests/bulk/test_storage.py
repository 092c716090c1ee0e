from pathlib import PureWindowsPath

import pytest

pytest.importorskip("ray")
pytest.importorskip("pyarrow")

from esrgan.bulk import storage
from esrgan.errors import ImageError


def test_paths_of_windows_are_those_of_fsspec(monkeypatch):
    monkeypatch.setattr(storage, "Path", PureWindowsPath)
    with storage.open_filesystem(r"C:\out\new") as (_, path):
        assert path == "C:/out/new"  # with which find() begins the names of files


def test_failed_upload_leaves_no_file(bucket, tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"content")
    put_file = type(bucket).put_file

    def torn(self, path, name, **options):
        put_file(self, path, name, **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(bucket), "put_file", torn)
    with pytest.raises(ImageError, match="No space left"):
        storage.upload(tmp_path / "a.png", "memory://out/a.png")
    assert not bucket.find("memory://out")
