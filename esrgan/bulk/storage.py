"""Read and write files by path or by URI, on any file system that fsspec supports."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import fsspec

from esrgan import images
from esrgan.errors import EsrganError, ImageError, Problem
from esrgan.images.find import FAMILIAR_SUFFIXES, is_omitted
from esrgan.paths import expand_user
from esrgan.text import describe_error

# Protocols whose uploads are atomic. On other file systems a complete file is renamed; object stores would copy it.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}


def strip_file_scheme(location: str) -> str:
    """Convert a file:// URI to a path, and replace a leading ``~`` in paths; return other URIs unchanged."""
    if location.startswith("file://"):
        return url2pathname(urlsplit(location).path)
    return location if not location or is_uri(location) else str(expand_user(location))


def is_uri(location: str) -> bool:
    """Return whether a location is a URI rather than a path."""
    return "://" in location


def local_stand_in(location: str) -> Path:
    """Return an absolute path for a path or URI, so that both can be named and sorted as paths.

    The path that stands for a URI does not exist.
    """
    return Path(f"/{location}") if is_uri(location) else Path(location).absolute()


@contextmanager
def open_filesystem(location: str) -> Iterator[tuple[Any, str]]:
    """Open the file system of a path or URI; errors in the block are raised as ``ImageError``.

    Args:
        location: A path or URI.

    Yields:
        The file system, and the location's path on it.

    Raises:
        ImageError: If the file system is not supported or an operation in the block fails.
    """
    try:
        if is_uri(location):
            system, path = fsspec.url_to_fs(location)
            system.invalidate_cache()  # other machines write too, so cached listings may be outdated
        else:
            system, path = fsspec.filesystem("file"), Path(location).as_posix()  # as it names files on Windows too
        yield system, path.rstrip("/")
    except EsrganError:
        raise
    except Exception as error:  # file systems raise any exception of their libraries
        got = f"{type(error).__name__}: {describe_error(error)}"
        expected, remedy = "a file that can be read and written", "free some disk space or change the permissions"
        if is_uri(location):
            expected = "a reachable location"
            remedy = "check the address and the credentials; s3:// needs the package s3fs, gs:// gcsfs, az:// adlfs"
        raise ImageError(Problem(location, expected, got, remedy)) from error


def list_images(uri: str) -> tuple[dict[str, PurePosixPath], dict[str, str]]:
    """List the images below a URI; they are recognised by suffix only.

    Returns:
        The path of each image relative to the URI, and the reason for each image or video that is skipped.

    Raises:
        ImageError: If the file system cannot be reached.
    """
    if PurePosixPath(uri).suffix.lower() in images.SUFFIXES:
        return {uri: PurePosixPath(PurePosixPath(uri).name)}, {}
    with open_filesystem(uri) as (system, root):
        relative_paths = [PurePosixPath(path.removeprefix(f"{root}/")) for path in sorted(system.find(root))]
    found, skipped = {}, {}
    for path in relative_paths:
        if any(is_omitted(part) for part in path.parts):
            continue
        if (suffix := path.suffix.lower()) in images.SUFFIXES:
            found[f"{uri.rstrip('/')}/{path}"] = path
        elif suffix in FAMILIAR_SUFFIXES:
            skipped[f"{uri.rstrip('/')}/{path}"] = f"not a supported format: {suffix}"
    return found, skipped


def exists(location: str) -> bool:
    """Return whether a file exists at a path or URI.

    Raises:
        ImageError: If the file system cannot be reached.
    """
    with open_filesystem(location) as (system, path):
        return bool(system.isfile(path))


def download(uri: str, path: Path) -> None:
    """Copy a file from a URI to a path on this machine.

    Raises:
        ImageError: If the file cannot be read.
    """
    with open_filesystem(uri) as (system, name):
        system.get_file(name, str(path))


def upload(path: Path, uri: str) -> None:
    """Copy a file from this machine to a URI, completely or not at all.

    Raises:
        ImageError: If the file cannot be written.
    """
    with open_filesystem(uri) as (system, name):
        if _OBJECT_STORES.isdisjoint([system.protocol] if isinstance(system.protocol, str) else system.protocol):
            folder, _, last = name.rpartition("/")
            system.makedirs(folder, exist_ok=True)
            temporary = f"{folder}/.{secrets.token_hex(4)}-{last}"
            try:
                system.put_file(str(path), temporary)
                system.mv(temporary, name)
            except BaseException:
                with suppress(Exception):  # the temporary file may not exist or may be unreachable
                    system.rm_file(temporary)
                raise
        else:
            system.put_file(str(path), name)
