"""Measuring generators on datasets, which ``esrgan test`` and ``esrgan interpolate --sweep`` have in common."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from esrgan.cli import command
from esrgan.errors import DatasetError, EsrganError, WeightsError
from esrgan.files import cache_dir, write_text

if TYPE_CHECKING:
    from esrgan.console import Console
    from esrgan.evaluation import Evaluation, Item
    from esrgan.evaluation.crops import Pictures
    from esrgan.weights import GeneratorFile


def add_options(parser: argparse._ActionsContainer, metrics: str = "psnr,ssim") -> None:
    """Add the options of datasets, metrics (with their default) and reports."""
    parser.add_argument(
        "-d",
        "--datasets",
        default="set5",
        metavar="LIST",
        help="names, folders, HR=LR folders, or =LR without originals, by commas (default: set5)",
    )
    parser.add_argument(
        "--metrics",
        default=metrics,
        metavar="LIST",
        help=f"psnr, ssim, niqe, lpips, dists, vgg16, or all, by commas (default: {metrics})",
    )
    parser.add_argument(
        "-s", "--show-results", type=command.natural, metavar="N", help="name and show the N best and worst images"
    )
    parser.add_argument(
        "-o", "--out-dir", type=Path, metavar="DIR", help="write enlarged images, sheets, report.md and report.html"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a JSON file")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write all figures to a CSV file")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="folder of the named datasets (default: data)")
    parser.add_argument(
        "--vgg-weights", type=Path, metavar="FILE", help="for vgg16, in place of torchvision's ImageNet weights"
    )
    parser.add_argument("--download", action="store_true", help="download the weights that metrics need")
    parser.add_argument("--no-cache", action="store_true", help="measure everything anew")
    parser.add_argument(
        "--workers", type=command.natural, default=2, metavar="N", help="threads for metrics (default: 2)"
    )
    parser.add_argument(
        "--precision", choices=["auto", "fp32", "bf16", "fp16"], default="fp32", help="default: fp32, the same anywhere"
    )
    command.add_device(parser)


@dataclass(frozen=True)
class Found:
    """What was found on a dataset.

    Attributes:
        evaluation: The figures.
        items: The images.
        folder: Where their results are; None if they were not written.
    """

    evaluation: Evaluation
    items: Sequence[Item]
    folder: Path | None


def measure(args: argparse.Namespace, files: Mapping[str, GeneratorFile]) -> tuple[list[Found], bool]:
    """Measure generators, print tables and write reports.

    Args:
        args: Of ``add_options``.
        files: Generators by the names they have in tables.

    Returns:
        What was found on each dataset, and whether that is all.
    """
    from esrgan import evaluation
    from esrgan.console import Console
    from esrgan.devices import select_device
    from esrgan.evaluation import results
    from esrgan.evaluation.report import html_report
    from esrgan.evaluation.tables import Section
    from esrgan.inference import Upscaler

    kinds = {(file.architecture.scale_factor, file.architecture.img_channels) for file in files.values()}
    if len(kinds) > 1:
        got = ", ".join(f"{file.path}: {file.architecture}" for file in files.values())
        raise WeightsError(f"expected models of one scale and number of channels, got {got}; test them one by one")
    ((scale, channels),) = kinds
    datasets = {name: _items(name, scale, args.data_root) for name in args.datasets.split(",")}
    folders = _folders(args.out_dir, datasets, [evaluation.BICUBIC, *files])
    for path in filter(None, (args.json, args.csv)):
        command.make_folder(path.parent)
        if path.is_dir():
            raise EsrganError(f"{path}: expected a file to write figures to, got a folder")
    console = Console()
    meters, missing = evaluation.make_meters(
        args.metrics.split(","),
        device=select_device(args.device),
        may_download=args.download,
        vgg16_weights=args.vgg_weights,
    )
    for line in missing:
        console.line(line)

    usable = {
        dataset: [meter for meter in meters if items[0].high is not None or not meter.metric.needs_reference]
        for dataset, items in datasets.items()
    }
    if bare := [dataset for dataset, those in usable.items() if not those]:
        raise DatasetError(f"{', '.join(bare)}: has no originals, and each of the metrics needs them; --metrics niqe")

    methods: dict[str, evaluation.Method] = {evaluation.BICUBIC: evaluation.Bicubic(scale)}
    facts = {}
    for name, file in files.items():
        upscaler = Upscaler.from_file(file, args.device, args.precision)
        methods[name] = evaluation.Model(upscaler)
        precision = str(upscaler.dtype).removeprefix("torch.")
        facts[name] = f"{file.describe()}; on {upscaler.device} in {precision}"
    facts["conventions"] = evaluation.convention(meters)
    about = [f"{name}: {fact}" for name, fact in facts.items()]
    for line in about:
        console.line(line)

    cache = evaluation.FigureCache(
        None if args.no_cache else cache_dir() / "figures",
        warn=lambda text: print(f"warning: {text}", file=sys.stderr),
    )
    errors: list[EsrganError] = []

    def note(error: EsrganError) -> None:
        console.end()
        print(f"error: {error}", file=sys.stderr)
        errors.append(error)

    found: list[Found] = []
    sections, report = [], about[:-1]
    for dataset, items in datasets.items():
        out_dir = folders.get(dataset)
        if out_dir:
            command.make_folder(out_dir)
        result = evaluation.evaluate(
            dataset,
            items,
            methods,
            usable[dataset],
            scale=scale,
            channels=channels,
            cache=cache,
            out_dir=out_dir,
            workers=args.workers,
            note=note,
            progress=partial(_say, console, dataset, len(items)),
        )
        console.end()
        if not result.rows:
            continue
        found.append(Found(result, items, out_dir))
        parts = [facts["conventions"], results.table(result), results.comparison(result), results.speed(result)]
        if args.show_results:
            parts.append(results.extremes(result, args.show_results))
        report += parts
        console.line("\n" + "\n\n".join(parts))
        if out_dir:
            sections.append(
                Section(
                    dataset,
                    result.methods,
                    result.metrics,
                    result.figures(),
                    result.means(),
                    [results.INTERVALS, *results.sentences(result), results.speed(result)],
                    partial(_load, out_dir, {item.name: item for item in items}, result.methods, scale, channels),
                )
            )
    if args.json:
        content = {each.evaluation.dataset: {"of": facts, **each.evaluation.content()} for each in found}
        write_text(args.json, json.dumps(content, indent=1, ensure_ascii=False))
    if args.csv:
        write_text(args.csv, results.as_csv([each.evaluation for each in found]))
    if args.out_dir:
        write_text(args.out_dir / "report.md", "\n\n".join(report) + "\n")
    if sections:
        page = html_report(", ".join(files), facts, sections, shown=args.show_results or 2)
        write_text(args.out_dir / "report.html", page)
    return found, not errors


def _load(
    out_dir: Path, items: Mapping[str, Item], methods: Sequence[str], scale: int, channels: int, image: str
) -> Pictures:
    from esrgan.evaluation import load_pictures

    return load_pictures(out_dir, items[image], methods, scale, channels)


def _say(console: Console, dataset: str, count: int, number: int) -> None:
    console.live(f"{dataset}: {number} of {count}", keep=False)


def _folders(out_dir: Path | None, datasets: Mapping[str, Sequence[Item]], methods: Sequence[str]) -> dict[str, Path]:
    """Choose a folder for the images of each dataset, named after it."""
    from esrgan.evaluation import check_folder, unique_names

    if out_dir is None:
        return {}
    places = [Path(dataset.partition("=")[0] or dataset[1:]).resolve() for dataset in datasets]
    names = unique_names([place.with_name(f"{place.name}.x") for place in places])
    folders = {dataset: out_dir / name for dataset, name in zip(datasets, names, strict=True)}
    for dataset, items in datasets.items():
        check_folder(folders[dataset], items, methods)
    return folders


def _items(dataset: str, scale: int, data_root: Path | None) -> list[Item]:
    """Find the images of a dataset: a name, a folder, HR=LR, or =LR."""
    from esrgan import images
    from esrgan.data import find_pairs
    from esrgan.data.datasets import default_data_root
    from esrgan.evaluation import Item, unique_names

    high, _, low = dataset.partition("=")
    if high:
        pairs = find_pairs([(high, low) if low else high], "val", scale, data_root or default_data_root())
        names = unique_names([pair.high for pair in pairs])
        return [Item(name, pair.low, pair.high) for name, pair in zip(names, pairs, strict=True)]
    if not low:
        raise DatasetError("--datasets: expected names, folders, HR=LR or =LR folders, got an empty one")
    paths = list(images.find([low]))
    return [Item(name, path, None) for name, path in zip(unique_names(paths), paths, strict=True)]
