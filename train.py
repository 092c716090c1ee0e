"""Train an ESRGAN generator: ``python train.py --help``."""

import sys

from esrgan.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["train", *sys.argv[1:]]))
