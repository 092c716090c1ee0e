"""Handle the files next to an image that state its place on a map, or hold something else about it."""

from __future__ import annotations

import math
from pathlib import Path

from esrgan.files import atomic_write
from esrgan.images.formats import SUFFIXES
from esrgan.text import describe_error

# Ends of the names of other files that hold coordinates, georeferencing, masks, overviews or edits of an image.
_OTHER_ENDS = (
    ".tfwx",
    ".jgwx",
    ".pgwx",
    ".aux.xml",
    ".prj",
    ".points",
    ".tab",
    ".rpb",
    "_rpc.txt",
    ".ovr",
    ".msk",
    ".xmp",
    ".aae",
    ".pp3",
)
_MAX_WORLD_FILE_BYTES = 1000


def world_file_suffixes(suffix: str) -> tuple[str, ...]:
    """Return the suffixes, in lower case, that the world file of an image can have: of .png .pgw, .pnw, .pngw, .wld."""
    suffix = suffix.lower()
    own = (f".{suffix[1]}{suffix[-1]}w", f"{suffix[:3]}w", f"{suffix}w") if len(suffix) > 2 else ()
    return (".wld", *own)


def copy_sidecars(
    source: Path, target: Path, factors: tuple[float, float], *, is_turned: bool = False, overwrite: bool = False
) -> list[str]:
    """Write the world files that the output of an image needs, and describe the other files next to the image.

    A world file has six lines (Esri): the width of a pixel, two rotations, the height of a pixel, and the coordinates
    of the centre of the upper left pixel. That of an output has the suffix that belongs to the format of the output. It
    never replaces a world file of the image.

    Args:
        source: The image.
        target: Its output, which exists already.
        factors: How many times larger the height and the width of the output are.
        is_turned: Whether the image was turned upright, so that its world files do not fit the output.
        overwrite: Replace existing files.

    Returns:
        Messages for the user about files that are not kept or cannot be written.
    """
    notes = []
    new_suffixes = world_file_suffixes(target.suffix)
    own = [_find(source, source.stem, suffix) for suffix in world_file_suffixes(source.suffix)]
    for path, new_suffix in zip(own, new_suffixes, strict=False):
        if path is None:
            continue
        numbers = _read_world_file(path)
        if numbers is None or is_turned:
            why = "is no world file" if numbers is None else "is for the image before it was turned upright"
            notes.append(f"{path.name} {why}, not kept")
            continue
        # One that belongs to two images would be replaced by that of the other output.
        chosen = new_suffixes[-1:] if _is_shared(path, source) else (new_suffix, *new_suffixes[1:2])
        places = [target.with_suffix(each.upper() if path.suffix.isupper() else each) for each in chosen]
        place = next((place for place in places if place not in own), None)
        if place is None:
            notes.append(f"{target.name} gets no world file, because {places[0].name} is that of {source.name}")
            continue
        content = _adjust(numbers, factors).encode()
        try:
            with atomic_write(place, overwrite=overwrite) as file:
                file.write(content)
        except FileExistsError:
            if not place.is_file() or _read(place) != content:
                notes.append(f"{place.name} exists already and is kept, but does not fit {target.name}")
        except OSError as error:
            notes.append(f"{place.name} cannot be written: {describe_error(error)}")
    others = {_find(source, start, end) for start in (source.name, source.stem) for end in _OTHER_ENDS}
    if found := sorted(path.name for path in others if path is not None):
        notes.append(f"files next to it not kept: {', '.join(found)}")
    return notes


def _find(source: Path, start: str, end: str) -> Path | None:
    """Return the file next to an image whose name has an end, in lower or upper case."""
    paths = (source.with_name(f"{start}{each}") for each in (end, end.upper()))
    return next((path for path in paths if path.is_file()), None)


def _is_shared(path: Path, source: Path) -> bool:
    """Return whether a world file of an image is also that of an image of another format next to it."""
    others = (suffix for suffix in SUFFIXES - {source.suffix.lower()} if source.with_suffix(suffix).is_file())
    return any(path.suffix.lower() in world_file_suffixes(suffix) for suffix in others)


def _read(path: Path) -> bytes:
    """Return the first bytes of a file, or nothing if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_WORLD_FILE_BYTES)
    except OSError:
        return b""


def _read_world_file(path: Path) -> list[float] | None:
    """Return the six numbers of a world file, which may have decimal commas; None if it is something else."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_WORLD_FILE_BYTES).decode("utf-8-sig")
        numbers = [float(word.replace(",", ".")) for word in text.split()]
    except (ValueError, OSError):
        return None
    return numbers if len(numbers) == 6 and all(map(math.isfinite, numbers)) else None


def _adjust(numbers: list[float], factors: tuple[float, float]) -> str:
    """Return a world file for larger pixels; its lines are the columns of the affine transform."""
    x_of_column, y_of_column, x_of_row, y_of_row, x, y = numbers
    vertical, horizontal = factors
    # The corner of the image stays where it is, so the centre of its first pixel moves towards it.
    columns, rows = (1 / horizontal - 1) / 2, (1 / vertical - 1) / 2
    x, y = x + columns * x_of_column + rows * x_of_row, y + columns * y_of_column + rows * y_of_row
    sizes = x_of_column / horizontal, y_of_column / horizontal, x_of_row / vertical, y_of_row / vertical
    return "".join(f"{number!r}\n" for number in (*sizes, x, y))
