"""Run the ``esrgan`` command: ``python -m esrgan``."""

from esrgan.cli import main

raise SystemExit(main())
