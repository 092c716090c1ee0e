"""Finds, reads and writes image files and makes contact sheets; every image is a uint8 array (H, W, C) in [0, 255]."""

from __future__ import annotations

import glob
import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageDraw, ImageFile, ImageFont, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from esrgan.errors import ImageError, Problem
from esrgan.files import new_image_file, reason

_JPEG = ("JPEG", {"quality": 95, "subsampling": "4:4:4"})
_TIFF = ("TIFF", {"compression": "tiff_lzw"})
# Lossless wherever the format can be: WebP's lossy mode would halve the resolution of the colours.
_WRITERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": ("WEBP", {"lossless": True, "exact": True}),
    ".bmp": ("BMP", {}),
    ".tif": _TIFF,
    ".tiff": _TIFF,
}
SUFFIXES: frozenset[str] = frozenset(_WRITERS)  # in lower case; compared without regard to case

_LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383}  # pixels, of libjpeg and libwebp

# A fixed list, as Pillow would run Ghostscript on a PostScript file called .png.
_READ_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
_READABLE = "an 8-bit PNG, JPEG, WebP, BMP or TIFF image"
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_KINDS = {1: "grey", 2: "grey with alpha", 3: "RGB", 4: "RGB with alpha"}
# Exif 2.32, §4.6.4: what turns an image with this Orientation upright; from 5 on its sides change places.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_LABEL_PX, _CHECK_PX = 14, 8  # of contact sheets: height of the letters, side of the squares behind transparent parts


def find(paths: Iterable[str | Path], suffixes: Collection[str] = SUFFIXES) -> dict[Path, Path]:
    """Lists the images that files, folders and glob patterns stand for.

    Args:
        paths: Files are taken as they are; folders, searched to any depth but not through links, and patterns
            (``**`` too) give the files with one of the suffixes, sorted, hidden ones left out.
        suffixes: In lower case; those of ``esrgan.pictures`` for images to be enlarged.

    Returns:
        The files in the order asked for, each once, with their place below the folder that was asked for, or below
        what of a pattern comes before its first wildcard; of single files that is the name.

    Raises:
        ImageError: Some of the paths give no file; it names all of them.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    problems = []
    for path in map(Path, paths):
        try:
            files, got = _expand(path, suffixes), "none there"
            if not files and linked_folders(path):
                got = "links to folders alone, which are not followed"
        except OSError as error:  # such as a folder that may not be entered
            files, got = {}, reason(error)
        if not files:
            remedy = f"check the path; suffixes searched for: {' '.join(sorted(suffixes))}"
            problems.append(Problem(str(path), "an image file or a folder with some", got, remedy))
        for file, place in files.items():
            found.setdefault(file.parent.resolve() / file.name, (file, place))
    if problems:
        raise ImageError(problems)
    return dict(found.values())


def _expand(path: Path, suffixes: Collection[str]) -> dict[Path, Path]:
    """The files that one path stands for, and their places; names that hold brackets come before patterns."""
    if path.is_dir():
        return {file: file.relative_to(path) for file in _images_below(path, suffixes)}
    if path.exists():
        return {path: Path(path.name)}
    matches = map(Path, sorted(glob.glob(str(path), recursive=True)))  # noqa: PTH207 Path.glob takes no absolute ones
    files = [
        file
        for match in matches
        for file in (_images_below(match, suffixes) if match.is_dir() else [match])
        if _is_image(file, suffixes)
    ]
    fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts[:-1]))
    return {file: file.relative_to(fixed) for file in files}


def _is_image(path: Path, suffixes: Collection[str]) -> bool:
    return path.suffix.lower() in suffixes and path.is_file()


def _images_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """The images in a folder and the folders in it, sorted; nothing hidden."""
    return [path for path in _below(folder) if _is_image(path, suffixes)]


def _below(folder: Path) -> list[Path]:
    paths = folder.rglob("*")
    return sorted(path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def linked_folders(path: str | Path) -> list[Path]:
    """Lists the links to folders in a folder and below, which ``find`` does not follow; sorted, nothing hidden."""
    return [link for link in _below(Path(path)) if link.is_symlink() and link.is_dir()]


def read(path: str | Path, channels: int) -> NDArray[np.uint8]:
    """Reads an image for training or measuring, so refuses whatever could only be read by changing it.

    Args:
        path: A PNG, JPEG, WebP, BMP or TIFF file.
        channels: 1 grey, 3 RGB, 4 RGB with alpha. A palette image is what its palette holds.

    Returns:
        (H, W, channels) uint8 in [0, 255], upright (EXIF orientation applied), writable.

    Raises:
        ImageError: The file is missing, damaged, animated, not 8-bit, of other channels or beyond Pillow's pixel limit.
    """
    with _open(path) as image:
        actual = _channels(image)
        if actual != channels:
            remedy = "convert it" if actual == 2 else f"convert it, or set img_channels to {actual}"
            raise ImageError(
                Problem(str(path), f"an image of kind {_KINDS[channels]}", f"one of kind {_KINDS[actual]}", remedy)
            )
        return _decode(image, _MODES[channels])


def measure(path: str | Path) -> tuple[int, int, int]:
    """Reads (height, width, channels) of an image from its header, as ``read`` would give it.

    Raises:
        ImageError: As ``read`` does, but for damage behind the header.
    """
    with _open(path) as image:
        width, height = image.size
        return (width, height, _channels(image)) if _orientation(image) >= 5 else (height, width, _channels(image))


def _decode(image: ImageFile.ImageFile, mode: str) -> NDArray[np.uint8]:
    """The upright pixels (H, W, C) of an opened image."""
    orientation = _orientation(image)
    upright: Image.Image = image if image.mode == mode else image.convert(mode)
    if orientation in _UPRIGHT:
        upright = upright.transpose(_UPRIGHT[orientation])
    pixels = np.array(upright, np.uint8)
    return pixels.reshape(*pixels.shape[:2], -1)


@contextmanager
def _open(path: str | Path) -> Iterator[ImageFile.ImageFile]:
    """Opens an image, refuses the unsuitable, and puts whatever goes wrong until it is closed into words."""
    try:
        with Image.open(path, formats=_READ_FORMATS) as image:
            # Pillow only warns up to twice its limit. Turning the warning into an error would not be thread-safe.
            if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError(f"{image.width}x{image.height}")
            # MPO is what phones write: a JPEG, with a preview or a depth map behind the photograph.
            if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                raise ImageError(
                    Problem(str(path), "one image", "an animation or several pages", "extract one of them")
                )
            if _is_deep(image):
                raise ImageError(Problem(str(path), _READABLE, "more than 8 bits per sample", "convert it to 8 bits"))
            if image.mode not in ("1", "P", *_MODES.values()):
                raise ImageError(Problem(str(path), "grey or RGB", f"Pillow mode {image.mode}", "convert it to RGB"))
            yield image
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        expected = f"at most {Image.MAX_IMAGE_PIXELS} pixels, to be safe from decompression bombs"
        remedy = "cut it into parts, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        raise ImageError(Problem(str(path), expected, f"more ({reason(error)})", remedy)) from error
    except UnidentifiedImageError as error:
        raise ImageError(Problem(str(path), _READABLE, "something else or a damaged one", "convert it")) from error
    except Exception as error:  # damaged files make Pillow raise anything from SyntaxError to struct.error
        raise ImageError(Problem(str(path), _READABLE, reason(error), "replace it or leave it out")) from error


def _is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether samples have more than 8 bits, of which Pillow's mode tells only in grey: 16-bit RGB is cut to 8 bits."""
    if isinstance(image, TiffImageFile):
        return bool(np.max(image.tag_v2.get(ExifTags.Base.BitsPerSample, 1)) > 8)
    return image.mode[0] in "IF" or (image.format == "PNG" and any(";16" in str(tile[3]) for tile in image.tile))


def _channels(image: ImageFile.ImageFile) -> int:
    if image.mode != "P":
        return len(image.getbands())
    if "transparency" in image.info:
        return 4
    palette = np.array(image.getpalette("RGB")).reshape(-1, 3)  # decodes the image, but palette images are rare
    return 1 if np.all(palette == palette[:, :1]) else 3


def _orientation(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation, 1 to 8, still to be applied to an opened image."""
    if image.format == "TIFF":
        return 1  # Pillow turns TIFF files upright itself
    # Not image.getexif(): that of a PNG decodes the whole image when there is no EXIF before the pixels.
    orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    return orientation if orientation in _UPRIGHT else 1


def write(path: str | Path, image: NDArray[np.uint8], *, overwrite: bool = False) -> None:
    """Writes an image whole or not at all: lossless, except JPEG at quality 95 and full colour resolution (4:4:4).

    Args:
        path: Where to; the suffix, one of ``SUFFIXES``, chooses the format. WebP stores grey as RGB.
        image: (H, W, 1 | 3 | 4) uint8 in [0, 255].
        overwrite: Whether a file that is there may be replaced.

    Raises:
        ImageError: The suffix is unknown, the format cannot hold the image, the file exists, or writing fails.
        ValueError: The array is not an image.
    """
    path = Path(path)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3, 4) or 0 in image.shape:
        raise ValueError(f"expected an image of uint8 (H, W, 1, 3 or 4), got {image.dtype} {image.shape}")
    if path.suffix.lower() not in _WRITERS:
        expected = f"a suffix of {' '.join(sorted(SUFFIXES))}"
        raise ImageError(Problem(str(path), expected, repr(path.suffix), "write to another name"))
    file_format, options = _WRITERS[path.suffix.lower()]
    if image.shape[2] == 4 and file_format in ("JPEG", "BMP"):
        raise ImageError(Problem(str(path), "an image without alpha", _KINDS[4], "write .png, .webp or .tif"))
    longest = _LONGEST_SIDE.get(file_format, max(image.shape))
    if max(image.shape) > longest:
        expected, got = f"at most {longest} pixels a side for {file_format}", f"{image.shape[0]}x{image.shape[1]}"
        raise ImageError(Problem(str(path), expected, got, "write .png or .tif"))
    try:
        with new_image_file(path, overwrite=overwrite) as file:
            Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, file_format, **options)
    except ImageError:
        raise
    except Exception as error:
        remedy = "check the folder and the space on its disk, or choose another format"
        raise ImageError(Problem(str(path), f"to write a {file_format} file", reason(error), remedy)) from error


def panel(rows: Sequence[Sequence[NDArray[np.uint8]]], labels: Sequence[str], gap: int = 8) -> NDArray[np.uint8]:
    """Puts images side by side on a white sheet, one row for each subject, one labelled column for each method.

    Args:
        rows: Images (H, W, 1 | 3 | 4) uint8 in [0, 255], in each row as many as there are labels. Those lower than the
            highest of their row, such as the LR image, are enlarged to its height by nearest neighbour. Grey becomes
            RGB; transparent parts show a checkerboard.
        labels: What to write above the columns.
        gap: Pixels between images and around the sheet.

    Returns:
        The sheet, (H', W', 3) uint8.

    Raises:
        ValueError: There is nothing to show or a row has another number of images.
    """
    if not rows or not labels or any(len(row) != len(labels) for row in rows):
        raise ValueError(f"expected rows of {len(labels)} images, one for each label, got {[len(row) for row in rows]}")
    font = ImageFont.load_default(_LABEL_PX)
    cells = [[_cell(image, max(len(other) for other in row)) for image in row] for row in rows]
    widths = [
        max(math.ceil(font.getlength(label)), *(cell.width for cell in column))
        for label, column in zip(labels, zip(*cells, strict=True), strict=True)
    ]
    lefts = [gap + sum(widths[:column]) + gap * column for column in range(len(widths))]
    heights = [2 * _LABEL_PX, *(row[0].height for row in cells)]  # double, as letters reach below the line
    tops = [gap + sum(heights[:row]) + gap * row for row in range(len(heights))]
    sheet = Image.new("RGB", (lefts[-1] + widths[-1] + gap, tops[-1] + heights[-1] + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for column, left in enumerate(lefts):
        draw.text((left, gap), labels[column], fill="black", font=font)
        for top, row in zip(tops[1:], cells, strict=True):
            sheet.paste(row[column], (left, top))
    return np.array(sheet)


def _cell(image: NDArray[np.uint8], height: int) -> Image.Image:
    """An (H, W, 1 | 3 | 4) image in RGB, enlarged to a height in pixels."""
    if image.shape[2] == 4:
        rows, columns = np.indices(image.shape[:2]) // _CHECK_PX
        checks = np.where((rows + columns) % 2, 102.0, 153.0)[..., None]
        opacity = image[..., 3:] / 255
        image = np.rint(image[..., :3] * opacity + checks * (1 - opacity)).astype(np.uint8)
    cell = Image.fromarray(np.broadcast_to(image, (*image.shape[:2], 3)))
    return cell.resize((round(cell.width * height / cell.height), height), Image.Resampling.NEAREST)
