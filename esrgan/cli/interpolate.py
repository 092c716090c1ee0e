"""``esrgan interpolate``: blend generators or their output images."""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from esrgan.cli import arguments, process, test
from esrgan.console import log
from esrgan.errors import EsrganError, Problem
from esrgan.extras import require_extra
from esrgan.pretrained import DEFAULT_PAIR, psnr_partner
from esrgan.weight_formats import WEIGHT_SUFFIXES

EXAMPLES = """\
  esrgan interpolate --alpha 0.8
  esrgan interpolate --psnr-model-path psnr.pth --esrgan-model-path gan.pth --alpha 0.8 blend.pth
  esrgan interpolate --mix psnr.pth=0.3 --mix gan.pth=0.5 --mix other.pth=0.2 blend.pth
  esrgan interpolate --images psnr.png gan.png --alpha 0.8 blend.png
  esrgan interpolate --psnr-model-path psnr.pth --esrgan-model-path gan.pth --sweep 11 \\
      -d photos/val --metrics psnr,ssim,niqe -o sweep"""

_DISTORTION_METRIC = re.compile("(psnr|ssim)(_y|_rgb)?")


def make_parser() -> argparse.ArgumentParser:
    """Return the argument parser of ``esrgan interpolate``."""
    parser = arguments.make_parser(
        "interpolate", "Blend the weights of generators: (1 - alpha) * PSNR + alpha * GAN.", EXAMPLES
    )
    parser.add_argument(
        "--psnr-model-path",
        metavar="FILE",
        help="PSNR-trained generator: a file or a model name (default: the PSNR partner of --esrgan-model-path)",
    )
    parser.add_argument(
        "--esrgan-model-path",
        metavar="FILE",
        help="GAN-trained generator: a file or a model name "
        f"(default: {DEFAULT_PAIR}, unless --psnr-model-path is given)",
    )
    parser.add_argument(
        "--alpha", type=arguments.fraction, metavar="A", help="share of the GAN model: 0 = faithful, 1 = full texture"
    )
    parser.add_argument(
        "--mix",
        type=_parse_mix,
        action="append",
        metavar="FILE=SHARE",
        help="blend any number of models, one --mix for each; the shares must add up to 1",
    )
    parser.add_argument(
        "--images", type=arguments.path, nargs=2, metavar=("PSNR", "GAN"), help="blend two images instead of models"
    )
    parser.add_argument("--overwrite", action="store_true", help="overwrite the output file if it exists")
    parser.add_argument(
        "out_path",
        type=arguments.path,
        nargs="?",
        metavar="FILE",
        help="output: .pth, .pt or .safetensors, or an image with --images "
        "(default: <GAN model>_alpha_<A>.pth in the current folder)",
    )
    sweep = parser.add_argument_group("evaluating blends")
    arguments.add_number(sweep, "--sweep", at_least=2, help="evaluate N blends with alpha from 0 to 1")
    test.add_evaluation_options(sweep, metrics="psnr,ssim,niqe")
    return parser


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments, and explain an output file that stands where an option is missing."""
    parser = make_parser()
    args, surplus = parser.parse_known_args(argv)
    if surplus and args.psnr_model_path and args.out_path and not args.esrgan_model_path:
        parser.error(f"--esrgan-model-path is missing before {args.out_path}")
    return parser.parse_args(argv)


def _parse_mix(text: str) -> tuple[str, float]:
    name, _, share = text.rpartition("=")
    with suppress(ValueError):
        if name:
            return name, float(share)
    raise argparse.ArgumentTypeError(f"expected FILE=SHARE, got {text}")


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    parser = make_parser()  # for its error messages
    is_pair = bool(args.psnr_model_path or args.esrgan_model_path)
    if args.psnr_model_path and not args.esrgan_model_path:
        parser.error("--esrgan-model-path is missing; --psnr-model-path needs it")
    if is_pair + bool(args.mix) + bool(args.images) > 1:
        parser.error("expected either --psnr-model-path and --esrgan-model-path, or --mix, or --images")
    if args.sweep:
        if args.mix or args.images or args.alpha is not None or args.out_path or not args.out_dir:
            parser.error("--sweep needs -o, and cannot be combined with --mix, --images, --alpha or an output file")
        kinds = {_DISTORTION_METRIC.fullmatch(name.strip()) is not None for name in args.metrics.split(",")}
        if kinds != {True, False} and args.metrics != "all":
            parser.error(
                "--sweep plots PSNR or SSIM against a perceptual metric; pass both, such as --metrics psnr,niqe"
            )
        if any(dataset.startswith("=") for dataset in args.datasets):
            parser.error(
                "--sweep needs datasets with ground truth, which =LR does not have; use HR=LR or a folder of HR images"
            )
        require_extra("metrics")
        return _sweep(args)
    if args.out_dir or args.json or args.csv:
        parser.error("-o, --json and --csv need --sweep")
    if (args.alpha is None) != bool(args.mix) or (not args.out_path and (args.mix or args.images)):
        parser.error(
            "--alpha is required, except with --mix, which does not allow it; "
            "--mix and --images also need an output file"
        )
    gan = args.esrgan_model_path or DEFAULT_PAIR
    out_path = args.out_path or Path(f"{Path(gan).stem}_alpha_{args.alpha:g}.pth")
    arguments.check_overwrite([out_path], overwrite=args.overwrite)
    if args.images:
        return _blend_images(args)
    if out_path.suffix.lower() not in WEIGHT_SUFFIXES:
        expected, got = f"one of {', '.join(WEIGHT_SUFFIXES)}", out_path.suffix or "no suffix"
        raise EsrganError(Problem(str(out_path), expected, got, "esrgan export converts a blend to other formats"))

    with process.importing():
        from esrgan.export import warn_of_ignored_layers
        from esrgan.interpolation import load_blend, mix
        from esrgan.weights import load_generator, save_file

    if args.mix:
        names, shares = [name for name, _ in args.mix], [share for _, share in args.mix]
        try:
            result = mix([load_generator(name) for name in names], shares)
        except ValueError as error:
            raise EsrganError(f"--mix: {error}") from error
    else:
        names, shares = [args.psnr_model_path or psnr_partner(gan), gan], [1 - args.alpha, args.alpha]
        result = load_blend(gan, args.psnr_model_path, args.alpha)
    save_file(out_path, result.to_dict(), overwrite=args.overwrite)
    warn_of_ignored_layers(result, out_path)
    terms = " + ".join(f"{share:g} × {name}" for share, name in zip(shares, names, strict=True))
    log.info("%s: %s, %s", out_path, result.size, terms)
    return process.OK


def _blend_images(args: argparse.Namespace) -> int:
    with process.importing():
        from esrgan import images
        from esrgan.interpolation import interpolate_images

    psnr, gan = (images.read_image(path) for path in args.images)
    try:
        result = interpolate_images(psnr, gan, args.alpha)
    except ValueError as error:
        raise EsrganError(f"{args.images[0]} and {args.images[1]}: {error}") from error
    for note in (*result.notes, *images.write_image(args.out_path, result, overwrite=args.overwrite)):
        log.info("note: %s: %s", args.out_path, note)
    log.info("%s: %g × %s + %g × %s", args.out_path, 1 - args.alpha, args.images[0], args.alpha, args.images[1])
    return process.OK


def _sweep(args: argparse.Namespace) -> int:
    with process.importing():
        from esrgan.evaluation.measuring import curve_path
        from esrgan.evaluation.sweep import plot_curve
        from esrgan.files import write_bytes
        from esrgan.interpolation import load_blend
        from esrgan.outputs import check_replaceable
        from esrgan.weights import load_generator

    gan, psnr, load = args.esrgan_model_path or DEFAULT_PAIR, args.psnr_model_path, functools.cache(load_generator)
    alphas = {f"alpha_{i / (args.sweep - 1):.3g}": i / (args.sweep - 1) for i in range(args.sweep)}
    shown = [name for i, name in enumerate(alphas) if i in {round(k * (args.sweep - 1) / 4) for k in range(5)}]
    blends = {name: load_blend(gan, psnr, alpha, load) for name, alpha in alphas.items()}
    evaluation, code = test.evaluate_and_report(args, blends, strips=shown)
    for dataset in evaluation.datasets:
        assert dataset.out_dir is not None  # noqa: S101  for the type checker
        curve = curve_path(dataset.out_dir)
        try:
            check_replaceable(curve)  # a file of the user's may have come since the start
            write_bytes(curve, plot_curve(dataset, alphas))
            log.info("%s: curve; %s/*_strip.png: blends side by side", curve, dataset.out_dir)
        except EsrganError as error:
            log.error("%s", error)
            code = process.SOME_FAILED
    return code
