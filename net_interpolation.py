"""Blend a PSNR model and a GAN model: ``python net_interpolation.py --help``."""

import sys

from esrgan.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["interpolate", *sys.argv[1:]]))
