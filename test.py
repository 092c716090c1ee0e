"""Measure models on datasets: ``python test.py --help``."""

from esrgan.cli.test import main

if __name__ == "__main__":
    raise SystemExit(main())
