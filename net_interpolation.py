"""Blend a PSNR model and a GAN model: ``python net_interpolation.py --help``."""

from esrgan.cli.interpolate import main

if __name__ == "__main__":
    raise SystemExit(main())
