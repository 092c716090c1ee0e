"""Reads and writes pictures to be enlarged: any depth, transparency, animations, with what their files say about them.

``esrgan.images`` is for training and measuring, and refuses whatever it would have to change.
"""

from esrgan.pictures.formats import SUFFIXES, Picture, check_writable
from esrgan.pictures.reading import MAX_PIXELS, read
from esrgan.pictures.writing import write

__all__ = ["MAX_PIXELS", "SUFFIXES", "Picture", "check_writable", "read", "write"]
