"""Tests of the package as a whole and of its documentation."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from esrgan import images
from tests.helpers.image_files import KINDS, double_size, make_file, read_metadata_independently

DOCS = Path(__file__).parents[2] / "docs/reference/image_formats.md"
SHAPES = {1: "grey", 2: "grey with alpha", 3: "RGB", 4: "RGB with alpha"}
DEPTHS = {np.uint8: "8-bit", np.uint16: "16-bit", np.float32: "float"}


def describe_metadata(before, after, key):
    """Return a cell of the table: whether metadata of the input is still in the output."""
    if key == "icc_profile" and after.get(key) != before.get(key) and after.get(key):
        return "sRGB"
    if not before.get(key):
        return "–"
    return "kept" if after.get(key) else "lost"


def make_table_row(folder, kind):
    """Return a row of the documented table by reading and writing a file of this kind."""
    path, _ = make_file(folder, kind)
    image_data = images.read_image(path)
    target = path.with_name(f"b{path.suffix}")
    messages = [*image_data.notes, *images.write_image(target, double_size(image_data), overwrite=True)]
    frame = image_data.frames[0]
    count = f", {len(image_data.frames)} frames" if len(image_data.frames) > 1 else ""
    bits = f"{image_data.bits}-bit" if image_data.bits else DEPTHS[frame.dtype.type]
    before, after = read_metadata_independently(path), read_metadata_independently(target)
    cells = [describe_metadata(before, after, key) for key in ("icc_profile", "exif", "xmp", "dpi")]
    return f"| {kind} | {bits} {SHAPES[frame.shape[2]]}{count} | {' | '.join(cells)} | {'; '.join(messages)} |"


@pytest.mark.slow
def test_documented_table_matches_behaviour(tmp_path):
    rows = [make_table_row(tmp_path, kind) for kind in KINDS]
    documented = [line for line in DOCS.read_text("utf-8").splitlines() if line.startswith("| ")][1:]
    assert documented == rows, "docs/reference/image_formats.md should have\n" + "\n".join(rows)


def test_import_loads_no_heavy_libraries():
    code = "import sys, esrgan.images; assert not {'pyvips', 'pillow_heif', 'torch', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_documentation_names_every_suffix():
    named = set(re.findall(r"`(\.\w+)`", DOCS.read_text("utf-8")))
    assert named >= images.SUFFIXES
