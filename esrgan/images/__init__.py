"""Find, read and write image files.

``read_image`` and ``write_image`` handle images to be upscaled: any bit depth, transparency, animations and metadata.
``read_pixels`` and ``write_pixels`` handle images for training and evaluation: 8 bits and one frame. They refuse an
image rather than change its samples.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from esrgan.images.find import find_images, is_omitted, list_files, search_images
from esrgan.images.formats import DATASET_SUFFIXES, SUFFIXES, check_writable
from esrgan.images.image import ImageData
from esrgan.images.reading import measure_images, read_image, read_pixels, read_shape
from esrgan.images.source import MAX_PIXELS
from esrgan.images.writing import set_resolution, write_image, write_pixels

if TYPE_CHECKING:
    from esrgan.images.pillow import has_pil_mode, to_pil
    from esrgan.images.sheet import make_contact_sheet

__all__ = [
    "DATASET_SUFFIXES",
    "MAX_PIXELS",
    "SUFFIXES",
    "ImageData",
    "check_writable",
    "find_images",
    "has_pil_mode",
    "is_omitted",
    "list_files",
    "make_contact_sheet",
    "measure_images",
    "read_image",
    "read_pixels",
    "read_shape",
    "search_images",
    "set_resolution",
    "to_pil",
    "write_image",
    "write_pixels",
]

# What needs Pillow is imported when it is first used.
_LAZY_IMPORTS = {
    "has_pil_mode": ("esrgan.images.pillow", "has_pil_mode"),
    "make_contact_sheet": ("esrgan.images.sheet", "make_contact_sheet"),
    "to_pil": ("esrgan.images.pillow", "to_pil"),
}

if not TYPE_CHECKING:  # otherwise type checkers would accept any name

    def __getattr__(name: str) -> Any:
        if name not in _LAZY_IMPORTS:
            raise AttributeError(f"module 'esrgan.images' has no attribute {name!r}")
        module, attribute = _LAZY_IMPORTS[name]
        return getattr(importlib.import_module(module), attribute)
