"""``esrgan info``: show what a model file contains."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from esrgan.cli import arguments, process
from esrgan.errors import EsrganError
from esrgan.pretrained import describe_licence
from esrgan.text import one_line

EXAMPLES = """\
  esrgan info esrgan-lite
  esrgan info models/*.pth
  esrgan info --json model.safetensors"""


def make_parser() -> argparse.ArgumentParser:
    """Return the argument parser of ``esrgan info``."""
    parser = arguments.make_parser("info", "Show what model files contain, whichever program wrote them.", EXAMPLES)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="generators, checkpoints or model names")
    parser.add_argument("--json", action="store_true", help="print one JSON object per model")
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    failed = 0
    for number, model in enumerate(args.models):
        try:
            info = _describe_model(model)
        except EsrganError as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
            continue
        if args.json:
            print(json.dumps(info))
        else:
            print("\n" * (number > 0) + "\n".join(_format_description(info)))
    return process.SOME_FAILED if failed else process.OK


def _describe_model(model: str) -> dict[str, Any]:
    """Return all known facts about a model, under the keys of the JSON output."""
    with process.importing():
        from esrgan.config import Config, describe_changes
        from esrgan.files import file_digest
        from esrgan.pretrained import MODELS, resolve
        from esrgan.weights import load_file, ncnn, parse_generator

    path = resolve(model)
    content = load_file(path)
    file = parse_generator(content, path)
    checkpoint = content.get("checkpoint")
    step = checkpoint.get("step") if isinstance(checkpoint, dict) else None
    files = ncnn.find_pair(path) or (path,)
    known = file.known
    info: dict[str, Any] = {
        "model": model,
        "name": known and known.name,
        "author": known and known.author,
        "page": known and known.page,
        "files": {
            str(part): {"bytes": part.stat().st_size, "sha256": file_digest(part).removeprefix("sha256:")}
            for part in files
        },
        "licence": file.licence or (MODELS[model].licence if model in MODELS else None),
        "architecture": str(file.architecture),
        "scale": file.architecture.scale_factor,
        "outscale": file.outscale,
        "channels": file.architecture.img_channels,
        "parameters": sum(value.numel() for value in file.state.values()),
        "names": file.dialect,
        "stage": file.origin,
        "checkpoint_step": step if isinstance(step, int) else None,
    }
    if file.hparams:
        default = json.loads(Config().model_dump_json())
        info["configuration"] = file.hparams
        info["differs_from_default"] = describe_changes(_select_known_keys(default, file.hparams), file.hparams)
    return info


def _select_known_keys(settings: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Return the settings whose keys also occur in another configuration."""
    return {
        key: _select_known_keys(value, known[key])
        if isinstance(value, dict) and isinstance(known[key], dict)
        else value
        for key, value in settings.items()
        if key in known
    }


def _format_description(info: dict[str, Any]) -> list[str]:
    reduced = f", reduced to ×{info['outscale']:g}" if info["outscale"] else ""
    lines = [
        f"{info['model']}: {info['architecture']}{reduced}, {info['parameters']:,} parameters, {info['stage']}",
        *(
            f"  file           {name}, {about['bytes']:,} bytes\n  sha256         {about['sha256']}"
            for name, about in info["files"].items()
        ),
        f"  tensor names   {info['names']}",
    ]
    if info["name"]:
        lines += [f"  known as       {info['name']} by {info['author']}", f"  page           {info['page']}"]
    if info["licence"] or info["name"]:
        lines.append(f"  licence        {one_line(describe_licence(info['licence']))}")
    if info["checkpoint_step"] is not None:
        lines.append(f"  checkpoint     step {info['checkpoint_step']:,}")
    if "configuration" in info:
        changes = info["differs_from_default"]
        exceptions = ", except (default → here)" if changes else ""
        lines.append(f"  trained with   the default configuration, as far as the file records it{exceptions}")
        lines += [f"    {one_line(change, 200)}" for change in changes]
    return lines
