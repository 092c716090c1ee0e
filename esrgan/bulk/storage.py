"""Files by path or by URI, on whatever file system fsspec has."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import fsspec

from esrgan import files, images
from esrgan.errors import EsrganError, ImageError, Problem
from esrgan.text import describe_error

# Where a put is atomic. Elsewhere a file is renamed when it is whole, of which object stores would make a copy.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}


def strip_file_scheme(location: str) -> str:
    """Give a path for a file:// URI; paths and other URIs as they are."""
    return url2pathname(urlsplit(location).path) if location.startswith("file://") else location


def is_uri(location: str) -> bool:
    """Tell a URI from a path."""
    return "://" in location


def local_stand_in(location: str) -> Path:
    """Give a path's absolute form, or a path that is like a URI, for what is done with names alone."""
    return Path(f"/{location}") if is_uri(location) else Path(location).absolute()


@contextmanager
def open_filesystem(location: str) -> Iterator[tuple[Any, str]]:
    """Give the file system of a path or URI, and its name there; put into words what goes wrong in the block.

    Raises:
        ImageError: If the file system is not known or does not do what is asked of it.
    """
    try:
        if is_uri(location):
            system, path = fsspec.url_to_fs(location)
            system.invalidate_cache()  # of listings: other machines write too
        else:
            system, path = fsspec.filesystem("file"), location
        yield system, path.rstrip("/")
    except EsrganError:
        raise
    except Exception as error:  # file systems raise what their libraries do
        got = f"{type(error).__name__}: {describe_error(error)}"
        expected, remedy = "a file that can be read and written", "free some space, or allow it"
        if is_uri(location):
            expected = "a place that can be reached"
            remedy = "check the address and the credentials; s3:// needs the package s3fs, gs:// gcsfs, az:// adlfs"
        raise ImageError(Problem(location, expected, got, remedy)) from error


def list_images(uri: str) -> dict[str, PurePosixPath]:
    """Give the images below a URI with their places there; what is named like an image is one, unseen.

    Raises:
        ImageError: If there are none.
    """
    if PurePosixPath(uri).suffix.lower() in images.SUFFIXES:
        return {uri: PurePosixPath(PurePosixPath(uri).name)}
    with open_filesystem(uri) as (system, root):
        relative_paths = [PurePosixPath(path.removeprefix(f"{root}/")) for path in sorted(system.find(root))]
    found = {
        f"{uri.rstrip('/')}/{path}": path
        for path in relative_paths
        if path.suffix.lower() in images.SUFFIXES and not any(part.startswith(".") for part in path.parts)
    }
    if not found:
        raise ImageError(Problem(uri, "an image or a folder with some", "none there", "check the address"))
    return found


def exists(location: str) -> bool:
    """Tell whether there is a file."""
    with open_filesystem(location) as (system, path):
        return bool(system.isfile(path))


def download(uri: str, path: Path) -> None:
    """Copy a file to this machine."""
    with open_filesystem(uri) as (system, name):
        system.get_file(name, str(path))


def upload(path: Path, location: str) -> None:
    """Copy a file of this machine, whole or not at all; if to a path, never onto another file.

    Raises:
        ImageError: If it cannot be written.
    """
    with open_filesystem(location) as (system, name):
        if not is_uri(location):
            Path(location).parent.mkdir(parents=True, exist_ok=True)
            with path.open("rb") as content, files.atomic_write(Path(location), overwrite=False) as file:
                shutil.copyfileobj(content, file)
        elif _OBJECT_STORES.isdisjoint([system.protocol] if isinstance(system.protocol, str) else system.protocol):
            folder, _, last = name.rpartition("/")
            system.makedirs(folder, exist_ok=True)
            temporary = f"{folder}/.{secrets.token_hex(4)}-{last}"
            try:
                system.put_file(str(path), temporary)
                system.mv(temporary, name)
            except BaseException:
                with suppress(Exception):  # if it was made at all, and can be reached
                    system.rm_file(temporary)
                raise
        else:
            system.put_file(str(path), name)
