"""Upscale images: ``python inference.py --help``."""

from esrgan.cli.inference import main

if __name__ == "__main__":
    raise SystemExit(main())
