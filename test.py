"""Measure models on datasets: ``python test.py --help``."""

import sys

from esrgan.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["test", *sys.argv[1:]]))
