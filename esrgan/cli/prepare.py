"""``esrgan prepare``: download datasets, make LR images, cut tiles, check, or preview a degradation."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from esrgan.cli import arguments, process
from esrgan.errors import ConfigError, DatasetError, EsrganError, Problem
from esrgan.machine import cpu_count
from esrgan.paths import describe_path, expand_user, suggest_path
from esrgan.progress import explain_interrupt
from esrgan.text import did_you_mean

EXAMPLES = """\
  esrgan prepare div2k                   # HR and ×4 LR images, 4.3 GB, into data/
  esrgan prepare div2k set5 set14 --scale 2 --data-root /disk/data
  esrgan prepare photos/train            # LR images of your own folder: photos/train_LR_x4
  esrgan prepare --tiles tiles photos/train scans  # tiles of 480 px, without blocky, empty and duplicate ones
  esrgan prepare --check own.json        # unusable, small, misaligned and duplicate images of a configuration
  esrgan prepare --preview photos/train  # a sheet of LR patches with Real-ESRGAN's degradation"""

SCALE = 4
PREVIEW_FILE = Path("degradation_preview.png")
MAX_BLOCKINESS, MIN_DETAIL = 1.0, 1.5  # docs/how_to/prepare_datasets.md has the measurements that they come from


def make_parser() -> argparse.ArgumentParser:
    """Return the argument parser of ``esrgan prepare``."""
    parser = arguments.make_parser(
        "prepare",
        "Download, verify and unpack datasets, or make the LR images of a folder. Run the command again to resume it. "
        "With --preview, show degraded LR patches before you train on them.",
        EXAMPLES,
    )
    parser.add_argument("dataset", nargs="+", help="div2k, bsds500, set5, set14, flickr2k, or a folder of HR images")
    actions = parser.add_mutually_exclusive_group()
    arguments.add_path(
        actions,
        "--tiles",
        metavar="DIR",
        help="cut the HR images into tiles of 480 px, each 240 px after the one before, in this folder. Tiles that are "
        "blocky, without detail or near-duplicates are dropped and listed",
    )
    actions.add_argument(
        "--check",
        action="store_true",
        help="report unusable and small images, misaligned pairs, and images that are in both the training and the "
        "validation images; name datasets, folders or configurations",
    )
    actions.add_argument(
        "--preview",
        action="store_true",
        help=f"only write {PREVIEW_FILE}: HR crops next to degraded LR patches; name a configuration first to use "
        "its degradation (default: Real-ESRGAN's)",
    )
    positive = arguments.number("a number of at least 0", lambda value: value >= 0)
    parser.add_argument(
        "--max-blockiness",
        type=positive,
        metavar="X",
        help=f"largest blockiness of a tile, from 0 without traces of JPEG (default: {MAX_BLOCKINESS})",
    )
    parser.add_argument(
        "--min-detail",
        type=positive,
        metavar="X",
        help=f"smallest detail of a tile, in levels of 255 (default: {MIN_DETAIL})",
    )
    parser.add_argument("--scale", type=int, choices=(2, 4, 8), help=f"scale of the LR images (default: {SCALE})")
    arguments.add_data_root(parser)
    arguments.add_number(
        parser, "--workers", help="threads that make LR images or tiles, or check images (default: one per CPU)"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    _refuse_useless_options(args)
    args.scale = args.scale or SCALE
    actions = {_cut_tiles: args.tiles, _check: args.check, _preview: args.preview}
    return next((action for action, is_chosen in actions.items() if is_chosen), _prepare)(args)


def _refuse_useless_options(args: argparse.Namespace) -> None:
    from esrgan.data.archives import ARCHIVES

    if not args.tiles and (args.max_blockiness, args.min_detail) != (None, None):
        raise EsrganError("--max-blockiness and --min-detail choose tiles; give --tiles too, or omit them")
    if args.preview and args.workers:
        raise EsrganError("--preview degrades a few patches in one thread; omit --workers")
    if args.workers and not (args.tiles or args.check) and all(name in ARCHIVES for name in args.dataset):
        raise EsrganError("published datasets are unpacked in one thread; omit --workers")
    if args.scale and args.tiles:
        raise EsrganError("--scale is that of LR images, and tiles are HR images; omit it")
    are_configs = [name.endswith(".json") for name in args.dataset]
    if args.scale and ((args.preview and are_configs[0]) or (args.check and all(are_configs))):
        raise EsrganError("the configuration's scale_factor is the scale; omit --scale")


def _prepare(args: argparse.Namespace) -> int:
    from esrgan.console import log
    from esrgan.data.archives import ARCHIVES
    from esrgan.data.datasets import default_data_root
    from esrgan.data.downscale import downscale_folder
    from esrgan.data.prepare import prepare_dataset

    _check_names(args.dataset, ARCHIVES)
    data_root = args.data_root or default_data_root()
    workers = args.workers or cpu_count()
    failed = 0
    for name in args.dataset:
        try:
            if name in ARCHIVES:
                with explain_interrupt(lambda: "the same command resumes"):
                    prepare_dataset(name, args.scale, data_root)
                problems: Sequence[str | Problem] = ()
            else:
                problems = downscale_folder(expand_user(name), args.scale, workers)
        except EsrganError as error:
            problems = error.problems
        for problem in problems:
            log.error("%s", problem)
        failed += bool(problems)
    return process.SOME_FAILED if failed else process.OK


def _check_names(names: Sequence[str], known: Collection[str]) -> None:
    """Check that the names are those of known datasets or folders."""
    unknown = [name for name in names if name not in known and describe_path(expand_user(name)) != "a folder"]
    if not unknown:
        return
    expected = f"{', '.join(known)} or a folder of images"
    raise DatasetError(Problem(f"dataset {name}", expected, *_describe_unknown(name, known)) for name in unknown)


def _describe_unknown(name: str, known: Collection[str]) -> tuple[str, str]:
    """Return what a name is that is none of the known datasets and folders, and the remedy."""
    from esrgan.data.datasets import DATASET_NAMES

    if name in DATASET_NAMES:
        return "a dataset that needs no preparation", "omit it"
    path = expand_user(name)
    if describe_path(path) == "a file":
        return "a file", "name its folder"
    return "neither", did_you_mean(name, known, suggest_path(path, "correct the name"))


def _cut_tiles(args: argparse.Namespace) -> int:
    from esrgan.console import log
    from esrgan.data.datasets import DATASET_NAMES, default_data_root
    from esrgan.data.tile_choice import Bounds
    from esrgan.data.tiles import cut_tiles

    _check_names(args.dataset, DATASET_NAMES)
    bounds = Bounds(
        MAX_BLOCKINESS if args.max_blockiness is None else args.max_blockiness,
        MIN_DETAIL if args.min_detail is None else args.min_detail,
    )
    workers = args.workers or cpu_count()
    problems = cut_tiles(args.dataset, args.data_root or default_data_root(), args.tiles, bounds, workers)
    for problem in problems:
        log.error("%s", problem)
    return process.SOME_FAILED if problems else process.OK


def _check(args: argparse.Namespace) -> int:
    from esrgan.cli.image_sets import list_sets
    from esrgan.console import log
    from esrgan.data.check import check_images
    from esrgan.data.datasets import DATASET_NAMES, default_data_root
    from esrgan.text import format_count

    _check_names([name for name in args.dataset if not name.endswith(".json")], DATASET_NAMES)
    places: dict[str, str] = {}
    for name in args.dataset:
        place = name if name in DATASET_NAMES else os.path.realpath(expand_user(name))
        if place in places:
            got = f"{places[place]} again" if places[place] != name else "it twice"
            raise DatasetError(Problem(f"dataset {name}", "each dataset once", got, "omit one of them"))
        places[place] = name
    sets, problems = list_sets(args.dataset, args.scale, args.data_root or default_data_root())
    for problem in problems:
        log.error("%s", problem)
    counts = check_images(sets, args.workers or cpu_count())
    counts["unusable dataset"] += len(problems)
    numbers: Counter[str] = Counter()
    for part in sets:
        numbers[part.name] += len(part.pairs)
    if len(numbers) == 1:
        log.info("duplicates: not searched for between training and validation images, because one set is given")
    groups = ", ".join(f"{number:,} {name}" for name, number in numbers.items())
    kinds = ", ".join(format_count(number, kind) for kind, number in (+counts).items())
    found = f"{format_count(counts.total(), 'problem')}: {kinds}" if kinds else "no problems"
    log.info(f"{format_count(numbers.total(), 'image')} checked ({groups}); {found}")
    return process.SOME_FAILED if kinds else process.OK


def _preview(args: argparse.Namespace) -> int:
    from esrgan import images
    from esrgan.config import Config, load
    from esrgan.data.datasets import find_pairs
    from esrgan.degradation.preview import preview
    from esrgan.outputs import PREPARE_SOFTWARE, check_replaceable
    from esrgan.text import format_count
    from esrgan.training.inputs import data_root_of, make_degradation

    check_replaceable(PREVIEW_FILE, "move it, or run the command in another folder")
    names = list(args.dataset)
    if names[0].endswith(".json"):
        config = load(names.pop(0))
        scale = int(config.scale_factor)
    else:
        stage = {"degradation": {}, "cr_patch_size": [256, 256]}
        config, scale = Config.model_validate({"training": stage}), args.scale
    found = (
        (stage, degradation)
        for stage in (config.training, config.pretraining)
        if (degradation := make_degradation(stage, scale, config.seed))
    )
    section, degradation = next(found, (None, None))
    if section is None or degradation is None:
        remedy = 'write "degradation": {} to use the one of Real-ESRGAN'
        raise ConfigError(Problem(args.dataset[0], "a degradation in one of its stages", "null in both", remedy))
    sources = names or [item if isinstance(item, str) else item.hr for item in section.train_datasets]
    data_root = args.data_root or data_root_of(config)
    pairs = find_pairs(sources, "train", scale, data_root, degraded=True)
    sheet = preview(
        [pair.high for pair in pairs], degradation, scale, section.cr_patch_size or (256, 256), config.img_channels
    )
    images.write_pixels(PREVIEW_FILE, sheet, overwrite=True, software=PREPARE_SOFTWARE)
    count = format_count(len(pairs), "HR image")
    print(f"{PREVIEW_FILE}: {sheet.shape[1]}×{sheet.shape[0]} px, from {count}, ×{scale}")
    return process.OK
