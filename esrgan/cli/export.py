"""``esrgan export``: write a generator in a format of another program."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import shlex
from typing import Any

from esrgan.cli import arguments, process
from esrgan.console import log
from esrgan.errors import EsrganError
from esrgan.extras import require_extra
from esrgan.files import write_text
from esrgan.text import one_line
from esrgan.weight_formats import DIALECT_KEYS, WEIGHT_SUFFIXES

EXPORT_SUFFIXES = (".onnx", ".pt2", ".param", *WEIGHT_SUFFIXES)
EXAMPLES = """\
  esrgan export esrgan-lite model.onnx --half
  esrgan export gan.pth model.pt2 --compile --device cuda
  esrgan export gan.pth model.param
  esrgan export gan.pth model.pth --names esrgan-old
  esrgan export gan.pth folder --hub owner/name --licence CC-BY-4.0 --description "For scans of film."
  esrgan export gan.pth 4x-Scans.json --openmodeldb --name Scans --author ann --licence CC-BY-4.0 --tag photo \\
      --description "For scans of film." --url https://example.org/gan.pth"""
# The options that say what only the author of a model knows, and the attribute of ModelFacts that each sets.
_FACTS = {
    "--name": ("name", "name of the model (for --hub default: that of the repository)"),
    "--author": ("authors", "who made it, for OpenModelDB an id of its users; may be repeated"),
    "--licence": ("licence", "SPDX identifier of the licence of the weights, if the file does not record it"),
    "--description": ("description", "what the model is for, in Markdown"),
    "--tag": ("tags", "keyword, for OpenModelDB an id of its tags such as photo; may be repeated"),
    "--dataset": ("dataset", "what the model was trained on, in Markdown"),
}
_OPENMODELDB_FACTS = {
    "--url": ("urls", "address of the weight file; may be repeated"),
    "--date": ("date", "day of publication, as yyyy-mm-dd (default: today)"),
    "--pretrained": ("pretrained", "id in OpenModelDB of the model that it was trained from"),
}


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
        help=".onnx, .pt2 (torch.export), .param (ncnn, with its .bin), weights (.safetensors, .pth, .pt), the folder "
        "for --hub, or the .json for --openmodeldb",
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
    _add_publishing_options(parser)
    return parser


def _add_publishing_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("publishing")
    kind = group.add_mutually_exclusive_group()
    kind.add_argument(
        "--hub",
        metavar="OWNER/NAME",
        help="write a folder for this repository of the Hugging Face Hub: weights, config.json and a model card",
    )
    kind.add_argument(
        "--openmodeldb", action="store_true", help="write the entry of OpenModelDB for MODEL; OUT is named after its id"
    )
    for option, (name, text) in (_FACTS | _OPENMODELDB_FACTS).items():
        settings: dict[str, Any] = {"action": "append", "default": []} if name in ("authors", "tags", "urls") else {}
        aliases = ["--license"] if option == "--licence" else []
        group.add_argument(option, *aliases, dest=name, metavar="TEXT", help=text, **settings)
    group.add_argument(
        "--image",
        dest="images",
        nargs=2,
        action="append",
        default=[],
        metavar=("LR", "SR"),
        help="addresses of an LR image and its output, for OpenModelDB; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    path, suffix = args.out_path, args.out_path.suffix.lower()
    if args.hub is not None or args.openmodeldb:
        return _publish(args)
    facts = {option: getattr(args, name) for option, (name, _) in (_FACTS | _OPENMODELDB_FACTS).items()}
    if unused := [option for option, value in (facts | {"--image": args.images}).items() if value]:
        raise EsrganError(f"{unused[0]}: only for --hub and --openmodeldb")
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
        difference = export.export_onnx(file, path, half=args.half, overwrite=args.overwrite)
        checked = f"; onnxruntime and PyTorch differ by at most {difference:.1g}"
    elif suffix == ".pt2":
        device = select_device(args.device) if args.compile else None
        difference = export.export_program(file, path, half=args.half, device=device, overwrite=args.overwrite)
        checked = f"; it differs from the generator by at most {difference:.1g}"
    elif suffix == ".param":
        export.export_ncnn(file, path, half=args.half, overwrite=args.overwrite)
    else:
        export.export_weights(file, path, args.names, half=args.half, overwrite=args.overwrite)
    sizes = sum(one.stat().st_size for one in written)
    files = " and ".join(map(str, written))
    log.info("%s: %s bytes, from %s (%s)%s", files, f"{sizes:,}", args.model, file.describe(), checked)
    return process.OK


def _publish(args: argparse.Namespace) -> int:
    """Write the folder of ``--hub`` or the entry of ``--openmodeldb``."""
    path, is_hub = args.out_path, args.hub is not None
    others = {"--half": args.half, "--names": args.names != "basicsr", "--compile": args.compile}
    others |= {"--device": args.device != "auto"}
    if is_hub:
        others |= {option: getattr(args, name) for option, (name, _) in _OPENMODELDB_FACTS.items()}
        others["--image"] = args.images
    if unused := [option for option, is_set in others.items() if is_set]:
        raise EsrganError(f"{unused[0]}: not for {'--hub' if is_hub else '--openmodeldb'}; omit it")
    if args.openmodeldb and path.suffix != ".json":
        raise EsrganError(f"{path}: expected a name that ends in .json, got {path.suffix or 'no suffix'}")
    with process.importing():
        from esrgan import publish
        from esrgan.pretrained import MODELS
        from esrgan.weights import load_generator

    written = [path / name for name in publish.HUB_FILES] if is_hub else [path]
    if not is_hub or path.is_dir():
        arguments.check_overwrite(written, overwrite=args.overwrite)
    file = load_generator(args.model)
    facts = publish.ModelFacts(
        **{field.name: getattr(args, field.name) for field in dataclasses.fields(publish.ModelFacts)}
    )
    if is_hub:
        if args.model in MODELS and not facts.description:
            facts = dataclasses.replace(facts, description=f"For {MODELS[args.model].summary}.")
        publish.write_hub_folder(file, path, args.hub, facts, overwrite=args.overwrite)
        remedy = f"upload it by `{shlex.join(['hf', 'upload', args.hub, str(path)])}`"
        if extra := sorted(each.name for each in path.iterdir() if each.name not in publish.HUB_FILES):
            remedy += f", with everything else in this folder, such as {one_line(extra[0])}"
    else:
        facts = dataclasses.replace(facts, date=facts.date or datetime.date.today().isoformat())
        entry = publish.make_openmodeldb_entry(file, path.stem, facts)
        write_text(path, json.dumps(entry, indent=4, ensure_ascii=False) + "\n", overwrite=args.overwrite)
        remedy = f"add it to OpenModelDB as data/models/{path.name}"
    log.info("%s: from %s (%s); %s", path, args.model, file.describe(), remedy)
    return process.OK
