"""Upscale images: ``python inference.py --help``."""

import sys

from esrgan.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["inference", *sys.argv[1:]]))
