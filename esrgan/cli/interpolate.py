"""``esrgan interpolate``: blend generators, or the images that they made."""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from esrgan.cli import command, measuring
from esrgan.errors import EsrganError, WeightsError

EXAMPLES = """\
  python net_interpolation.py --psnr-model-path psnr.pth --esrgan-model-path gan.pth --alpha 0.8 blend.pth
  python net_interpolation.py --mix psnr.pth=0.3 --mix gan.pth=0.5 --mix other.pth=0.2 blend.pth
  python net_interpolation.py --images psnr.png gan.png --alpha 0.8 blend.png
  python net_interpolation.py --psnr-model-path psnr.pth --esrgan-model-path gan.pth --sweep 11 \\
      -d photos/val --metrics psnr,ssim,niqe -o sweep"""


_FIDELITY = re.compile("(psnr|ssim)(_y|_rgb)?")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; give its exit code."""
    parser = command.make_parser(
        "interpolate", "Blend the weights of generators: (1 - alpha) * PSNR + alpha * GAN.", EXAMPLES
    )
    parser.add_argument("--psnr-model-path", type=Path, metavar="FILE", help="PSNR-oriented generator")
    parser.add_argument("--esrgan-model-path", type=Path, metavar="FILE", help="GAN-trained generator")
    parser.add_argument("--alpha", type=command.alpha, metavar="A", help="0 smooth and faithful, 1 all texture")
    parser.add_argument(
        "--mix", type=_share, action="append", metavar="FILE=SHARE", help="blend any number; shares add up to 1"
    )
    parser.add_argument(
        "--images", type=Path, nargs=2, metavar=("PSNR", "GAN"), help="blend two images, not the models"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it is there already")
    parser.add_argument(
        "out_path", type=Path, nargs="?", metavar="FILE", help="where to write the blend: .pth, .safetensors, an image"
    )
    sweep = parser.add_argument_group("measuring blends")
    sweep.add_argument(
        "--sweep", type=lambda text: command.whole(text, 2), metavar="N", help="measure N blends, alpha from 0 to 1"
    )
    measuring.add_options(sweep, metrics="psnr,ssim,niqe")
    return command.run(parser, lambda args: _interpolate(parser, args), argv)


def _share(text: str) -> tuple[Path, float]:
    name, _, share = text.rpartition("=")
    try:
        if name:
            return Path(name), float(share)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected FILE=SHARE, got {text}")


def _interpolate(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    models = args.psnr_model_path, args.esrgan_model_path
    if sum(map(bool, (any(models), args.mix, args.images))) != 1 or (any(models) and not all(models)):
        parser.error("expected both --psnr-model-path and --esrgan-model-path, or --mix, or --images")
    if args.sweep:
        if not all(models) or args.alpha is not None or args.out_path or not args.out_dir:
            parser.error("--sweep takes --psnr-model-path, --esrgan-model-path, -d and -o")
        kinds = {_FIDELITY.fullmatch(name.strip()) is not None for name in args.metrics.split(",")}
        if kinds != {True, False} and args.metrics != "all":
            parser.error("--sweep draws PSNR or SSIM against a metric of perception, such as --metrics psnr,niqe")
        if any(dataset.startswith("=") for dataset in args.datasets.split(",")):
            parser.error("--sweep needs datasets with originals")
        if importlib.util.find_spec("matplotlib") is None:
            raise EsrganError("--sweep draws by matplotlib, which is not installed; pip install 'esrgan[metrics]'")
        return _sweep(args)
    if args.out_dir or args.json or args.csv:
        parser.error("-o, --json and --csv are for --sweep")
    if (args.alpha is None) != bool(args.mix) or not args.out_path:
        parser.error("expected --alpha, but for --mix, and the file to write")
    if args.out_path.exists() and not args.overwrite:
        raise WeightsError(f"{args.out_path}: is there already; --overwrite replaces it")
    if args.images:
        return _blend_images(args)

    with command.importing():
        from esrgan.interpolation import blend, mix
        from esrgan.weights import load_generator, save_file

    if args.mix:
        files, shares = [load_generator(path) for path, _ in args.mix], [share for _, share in args.mix]
        try:
            result = mix(files, shares)
        except ValueError as error:
            raise EsrganError(f"--mix: {error}") from error
    else:
        files, shares = [load_generator(path) for path in models], [1 - args.alpha, args.alpha]
        result = blend(files[0], files[1], args.alpha)
    save_file(args.out_path, result.content())
    terms = " + ".join(f"{share:g} × {file.path}" for file, share in zip(files, shares, strict=True))
    print(f"{args.out_path}: {result.architecture}, {terms}")
    return command.OK


def _blend_images(args: argparse.Namespace) -> int:
    with command.importing():
        from esrgan import pictures
        from esrgan.interpolation import interpolate_pictures

    psnr, gan = (pictures.read(path) for path in args.images)
    try:
        result = interpolate_pictures(psnr, gan, args.alpha)
    except ValueError as error:
        raise EsrganError(f"{args.images[0]} and {args.images[1]}: {error}") from error
    for note in (*result.notes, *pictures.write(args.out_path, result, overwrite=args.overwrite)):
        print(f"note: {args.out_path}: {note}")
    print(f"{args.out_path}: {1 - args.alpha:g} × {args.images[0]} + {args.alpha:g} × {args.images[1]}")
    return command.OK


def _sweep(args: argparse.Namespace) -> int:
    with command.importing():
        from esrgan import images
        from esrgan.evaluation import load_pictures
        from esrgan.evaluation.sweep import curve, strip
        from esrgan.files import write_bytes
        from esrgan.interpolation import blend
        from esrgan.weights import load_generator

    psnr, gan = load_generator(args.psnr_model_path), load_generator(args.esrgan_model_path)
    alphas = {f"alpha_{i / (args.sweep - 1):.3g}": i / (args.sweep - 1) for i in range(args.sweep)}
    blends = {name: blend(psnr, gan, alpha) for name, alpha in alphas.items()}
    found, is_complete = measuring.measure(args, blends)
    scale, channels = psnr.architecture.scale_factor, psnr.architecture.img_channels
    chosen = [name for i, name in enumerate(alphas) if i in {round(k * (args.sweep - 1) / 4) for k in range(5)}]
    for each in found:
        assert each.folder is not None  # noqa: S101  for the type checker
        for item in each.items:
            if item.name in each.evaluation.rows:
                shown = strip(load_pictures(each.folder, item, each.evaluation.methods, scale, channels), chosen)
                images.write(each.folder / f"{item.name}_strip.png", shown, overwrite=True)
        try:
            write_bytes(each.folder / "curve.png", curve(each.evaluation, alphas))
            print(f"{each.folder / 'curve.png'}: the curve; {each.folder}/*_strip.png: the blends side by side")
        except EsrganError as error:
            print(f"error: {error}", file=sys.stderr)
            is_complete = False
    return command.OK if is_complete else command.SOME_FAILED
