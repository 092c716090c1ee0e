"""Recognise public model files by their checksums, without a network.

The table ``public_models.csv`` has the facts that OpenModelDB (https://openmodeldb.info) recorded in August 2026 about
the model files of the ESRGAN family.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass, replace
from pathlib import Path

from esrgan.files import file_digest

_TABLE = Path(__file__).with_name("public_models.csv")
_PAGES = "https://openmodeldb.info/models"
# Files of this package that were converted from public ones: their size and SHA-256, and the SHA-256 of the public one.
_CONVERTED = {
    (1_251_488, "e68a414b863534e9da68cac41bcc9511439a2c91ce46a05670968bef5c198f53"): (
        2_504_012,
        "b8a8376811077954d82ca3fcf476f1ac3da3e8a68a4f4d71363008000a18b75d",
    ),
}
_NON_COMMERCIAL = "-NC"  # in the identifiers of Creative Commons' licences


@dataclass(frozen=True)
class KnownModel:
    """What is recorded about a public model file.

    Attributes:
        name: Name of the model.
        author: Who made it.
        licence: SPDX identifier of its licence; None if none is recorded.
        page: Address of a page about it.
    """

    name: str
    author: str
    licence: str | None
    page: str

    def __str__(self) -> str:
        return f"{self.name} by {self.author}, {describe_licence(self.licence)}"


def describe_licence(licence: str | None) -> str:
    """Return a licence in words, which say so if it forbids commercial use."""
    if licence is None:
        return "licence unknown"
    return f"{licence}: not for commercial use" if _NON_COMMERCIAL in licence else licence


def identify(path: Path) -> KnownModel | None:
    """Return what is recorded about a file; None if it is not in the table.

    The checksum is computed only if the table has a file of the same size.

    Example:
        >>> from pathlib import Path
        >>> from esrgan.pretrained import identify
        >>> identify(Path("photo.png")) is None
        True
    """
    if not path.is_file() or (size := path.stat().st_size) not in _read_table():
        return None
    return _read_table()[size].get(file_digest(path).removeprefix("sha256:"))


@functools.cache
def _read_table() -> dict[int, dict[str, KnownModel]]:
    """Return the known models by size in bytes and SHA-256."""
    table: dict[int, dict[str, KnownModel]] = {}
    with _TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            same_size = table.setdefault(int(row["bytes"]), {})
            known = KnownModel(row["name"], row["author"], row["licence"] or None, f"{_PAGES}/{row['page']}")
            if (other := same_size.get(row["sha256"])) is not None:  # one file on two pages
                known = replace(other, name=f"{other.name} or {known.name}")
            same_size[row["sha256"]] = known
    for (size, digest), (public_size, public_digest) in _CONVERTED.items():
        if model := table.get(public_size, {}).get(public_digest):
            table.setdefault(size, {})[digest] = model
    return table
