"""``esrgan info``: what a model file is."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from esrgan.cli import command
from esrgan.errors import EsrganError, one_line

EXAMPLES = """\
  esrgan info esrgan-lite
  esrgan info models/*.pth
  esrgan info --json model.safetensors"""


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command's arguments."""
    parser = command.make_parser("info", "Tell what model files are, whoever made them.", EXAMPLES)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="generators, checkpoints or names of models")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; give its exit code."""
    return command.run(make_parser(), _info, argv)


def _info(args: argparse.Namespace) -> int:
    failed = 0
    for number, model in enumerate(args.models):
        try:
            facts = _facts(model)
        except EsrganError as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
            continue
        if args.json:
            print(json.dumps(facts))
        else:
            print("\n" * (number > 0) + "\n".join(_lines(facts)))
    return command.SOME_FAILED if failed else command.OK


def _facts(model: str) -> dict[str, Any]:
    """Give what is known of a model, under the names that are shown."""
    with command.importing():
        from esrgan.config import Config, differences
        from esrgan.files import file_digest
        from esrgan.pretrained import MODELS, find
        from esrgan.weights import load_file, ncnn, parse_generator

    path = find(model)
    content = load_file(path)
    file = parse_generator(content, path)
    checkpoint = content.get("checkpoint")
    step = checkpoint.get("step") if isinstance(checkpoint, dict) else None
    files = ncnn.find_pair(path) or (path,)
    facts: dict[str, Any] = {
        "model": model,
        "files": {
            str(part): {"bytes": part.stat().st_size, "sha256": file_digest(part).removeprefix("sha256:")}
            for part in files
        },
        "licence": file.licence or (MODELS[model].licence if model in MODELS else None),
        "architecture": str(file.architecture),
        "scale": file.architecture.scale_factor,
        "channels": file.architecture.img_channels,
        "parameters": sum(value.numel() for value in file.state.values()),
        "names": file.dialect,
        "stage": file.origin,
        "checkpoint_step": step if isinstance(step, int) else None,
    }
    if file.hparams:
        default = json.loads(Config().model_dump_json())
        facts["configuration"] = file.hparams
        facts["differs_from_default"] = differences(_part(default, file.hparams), file.hparams)
    return facts


def _part(settings: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Leave out the settings whose keys are not in another configuration."""
    return {
        key: _part(value, known[key]) if isinstance(value, dict) and isinstance(known[key], dict) else value
        for key, value in settings.items()
        if key in known
    }


def _lines(facts: dict[str, Any]) -> list[str]:
    lines = [
        f"{facts['model']}: {facts['architecture']}, {facts['parameters']:,} parameters, {facts['stage']}",
        *(
            f"  file           {name}, {about['bytes']:,} bytes\n  sha256         {about['sha256']}"
            for name, about in facts["files"].items()
        ),
        f"  tensor names   {facts['names']}",
    ]
    if facts["licence"]:
        lines.append(f"  licence        {one_line(facts['licence'])}")
    if facts["checkpoint_step"] is not None:
        lines.append(f"  checkpoint     of step {facts['checkpoint_step']:,}")
    if "configuration" in facts:
        changes = facts["differs_from_default"]
        but = ", but for (default → here)" if changes else ""
        lines.append(f"  trained with   the default configuration as far as the file tells{but}")
        lines += [f"    {one_line(change, 200)}" for change in changes]
    return lines
