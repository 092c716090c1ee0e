"""Train an ESRGAN generator: ``python train.py --help``."""

from esrgan.cli.train import main

if __name__ == "__main__":
    raise SystemExit(main())
