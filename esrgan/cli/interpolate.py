"""``esrgan interpolate``: blend a PSNR model and a GAN model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from esrgan.cli import command
from esrgan.errors import WeightsError

EXAMPLES = """\
  python net_interpolation.py --psnr-model-path psnr.pth --esrgan-model-path gan.pth --alpha 0.8 blend.pth"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; give its exit code."""
    parser = command.make_parser(
        "interpolate", "Blend the weights of two generators: (1 - alpha) * PSNR + alpha * GAN.", EXAMPLES
    )
    parser.add_argument("--psnr-model-path", type=Path, required=True, metavar="FILE", help="PSNR-oriented generator")
    parser.add_argument("--esrgan-model-path", type=Path, required=True, metavar="FILE", help="GAN-trained generator")
    parser.add_argument(
        "--alpha", type=command.alpha, required=True, metavar="A", help="0 smooth and faithful, 1 all texture"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it is there already")
    parser.add_argument("out_model_path", type=Path, help="where to write the blend: .pth or .safetensors")
    return command.run(parser, _interpolate, argv)


def _interpolate(args: argparse.Namespace) -> int:
    from esrgan.interpolation import blend
    from esrgan.weights import load_generator, save_file

    if args.out_model_path.exists() and not args.overwrite:
        raise WeightsError(f"{args.out_model_path}: is there already; --overwrite replaces it")
    psnr, gan = load_generator(args.psnr_model_path), load_generator(args.esrgan_model_path)
    save_file(args.out_model_path, blend(psnr, gan, args.alpha).content())
    print(f"{args.out_model_path}: {gan.architecture}, {1 - args.alpha:g} × {psnr.path} + {args.alpha:g} × {gan.path}")
    return command.OK
