"""``esrgan export``: write a generator in a format of another program."""

from __future__ import annotations

import argparse

from esrgan.cli import arguments, process
from esrgan.console import log
from esrgan.errors import EsrganError
from esrgan.extras import require_extra
from esrgan.weight_formats import DIALECT_KEYS, WEIGHT_SUFFIXES

EXPORT_SUFFIXES = (".onnx", ".pt2", ".param", *WEIGHT_SUFFIXES)
EXAMPLES = """\
  esrgan export esrgan-lite model.onnx --half
  esrgan export gan.pth model.pt2 --compile --device cuda
  esrgan export gan.pth model.param
  esrgan export gan.pth model.pth --names esrgan-old"""


def make_parser() -> argparse.ArgumentParser:
    """Return the argument parser of ``esrgan export``."""
    parser = arguments.make_parser(
        "export",
        "Export a generator for other programs; the suffix of OUT selects the format. .onnx and .pt2 are verified "
        "against PyTorch before they are written.",
        EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL", help="generator, checkpoint or model name")
    parser.add_argument(
        "out_path",
        type=arguments.path,
        metavar="OUT",
        help=".onnx, .pt2 (torch.export), .param (ncnn, with its .bin), or weights: .safetensors, .pth, .pt",
    )
    parser.add_argument("--half", action="store_true", help="export in float16")
    parser.add_argument(
        "--names",
        choices=DIALECT_KEYS,
        default="basicsr",
        help="naming scheme of the tensors in weight files (default: basicsr, which most programs read)",
    )
    parser.add_argument(
        "--compile", action="store_true", help="compile the .pt2 for --device (AOTInductor), to run it without Python"
    )
    parser.add_argument("--overwrite", action="store_true", help="overwrite existing files")
    arguments.add_device(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    path, suffix = args.out_path, args.out_path.suffix.lower()
    if suffix not in EXPORT_SUFFIXES:
        raise EsrganError(f"{path}: expected one of {', '.join(EXPORT_SUFFIXES)}, got {path.suffix or 'no suffix'}")
    if args.names != "basicsr" and suffix not in WEIGHT_SUFFIXES:
        raise EsrganError(f"--names: only for {', '.join(WEIGHT_SUFFIXES)}, got {suffix}")
    if args.compile and suffix != ".pt2":
        raise EsrganError(f"--compile: only for .pt2, got {suffix}")
    if args.device != "auto" and not args.compile:
        raise EsrganError("--device: only for --compile; add --compile or omit --device")
    written = [path, path.with_suffix(".bin")] if suffix == ".param" else [path]
    arguments.check_overwrite(written, overwrite=args.overwrite)
    if suffix == ".onnx":
        require_extra("export")
    with process.importing():
        from esrgan import export
        from esrgan.devices import select_device
        from esrgan.weights import load_generator

    file = load_generator(args.model)
    checked = ""
    if suffix == ".onnx":
        difference = export.export_onnx(file, path, half=args.half)
        checked = f"; onnxruntime and PyTorch differ by at most {difference:.1g}"
    elif suffix == ".pt2":
        device = select_device(args.device) if args.compile else None
        difference = export.export_program(file, path, half=args.half, device=device)
        checked = f"; it differs from the generator by at most {difference:.1g}"
    elif suffix == ".param":
        export.export_ncnn(file, path, half=args.half)
    else:
        export.export_weights(file, path, args.names, half=args.half)
    sizes = sum(one.stat().st_size for one in written)
    files = " and ".join(map(str, written))
    log.info("%s: %s bytes, from %s (%s)%s", files, f"{sizes:,}", args.model, file.describe(), checked)
    return process.OK
