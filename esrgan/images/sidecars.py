"""Files beside an image that say where it lies on a map."""

from __future__ import annotations

from pathlib import Path

# Besides the first and the last letter of the suffix with a w (.pgw for .png), and the whole suffix with a w (.pngw).
_WORLD_FILE_SUFFIX = ".wld"
_OTHER_SUFFIXES = (".aux.xml", ".prj", ".ovr", ".points")


def read_sidecars(source: Path, factors: tuple[float, float]) -> tuple[dict[str, str], list[str]]:
    """Return the world files that the output of an image needs, and notes on other files beside the image.

    A world file has six lines (Esri): the width of a pixel, two rotations, the height of a pixel, and the coordinates
    of the centre of the upper left pixel.

    Args:
        source: The image.
        factors: How many times larger the height and the width of the output are.

    Returns:
        The text of each world file by its suffix, and notes.
    """
    suffix = source.suffix
    names = [source.with_suffix(end) for end in (f".{suffix[1:2]}{suffix[-1:]}w", f"{suffix}w", _WORLD_FILE_SUFFIX)]
    texts, notes = {}, []
    for path in names:
        if not path.is_file():
            continue
        try:
            numbers = [float(line) for line in path.read_text().split()]
            if len(numbers) != 6:
                raise ValueError
        except (ValueError, OSError):
            notes.append(f"{path.name} is no world file, not kept")
            continue
        texts[path.suffix] = _adjust(numbers, factors)
    others = [source.with_name(f"{source.name}{end}") for end in _OTHER_SUFFIXES]
    others += [source.with_suffix(end) for end in _OTHER_SUFFIXES]
    if found := sorted({path.name for path in others if path.is_file()}):
        notes.append(f"files beside it not kept: {', '.join(found)}")
    return texts, notes


def _adjust(numbers: list[float], factors: tuple[float, float]) -> str:
    """Return a world file for larger pixels; its lines are the columns of the affine transform."""
    x_of_column, y_of_column, x_of_row, y_of_row, x, y = numbers
    vertical, horizontal = factors
    # The corner of the image stays where it is, so the centre of its first pixel moves towards it.
    columns, rows = (1 / horizontal - 1) / 2, (1 / vertical - 1) / 2
    x, y = x + columns * x_of_column + rows * x_of_row, y + columns * y_of_column + rows * y_of_row
    sizes = x_of_column / horizontal, y_of_column / horizontal, x_of_row / vertical, y_of_row / vertical
    return "".join(f"{number!r}\n" for number in (*sizes, x, y))
