"""``esrgan demo``: serve a web page to try models."""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
from pathlib import Path

from esrgan.cli import arguments, process
from esrgan.cli.upscaling_options import OUTPUT_FORMATS
from esrgan.extras import require_extra
from esrgan.files import check_temporary_folder

EXAMPLES = """\
  esrgan demo
  esrgan demo -m saved_models/first_RRDB_ESRGAN_x4.pth --device cuda:1
  esrgan demo --host 0.0.0.0 --port 8000 --max-megapixels 12"""


def make_parser() -> argparse.ArgumentParser:
    """Return the argument parser of ``esrgan demo``."""
    parser = arguments.make_parser(
        "demo",
        "Serve a web page that upscales images with the models on this machine. Images stay on this machine.\n"
        "Uploads and outputs are deleted after an hour, or when the demo ends.",
        EXAMPLES,
    )
    parser.add_argument(
        "-m",
        "--model-path",
        action="append",
        default=[],
        metavar="FILE",
        help="also offer this generator or checkpoint; may be repeated",
    )
    parser.add_argument(
        "--max-megapixels",
        type=arguments.positive_float(500),
        default=4.0,
        metavar="N",
        help="size of the largest image that can be upscaled, in megapixels (default: 4)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, reachable only from this machine)",
    )
    parser.add_argument(
        "--port",
        type=arguments.integer(1, 65535),
        default=7860,
        metavar="N",
        help="port to listen on (default: 7860)",
    )
    arguments.add_device(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    require_extra("demo")
    check_temporary_folder()
    # Uploads and outputs are in this folder, so they are deleted when the command ends.
    with tempfile.TemporaryDirectory(prefix="esrgan-demo-", ignore_cleanup_errors=True) as folder:
        # Gradio reads these variables when it is imported; by default it would send analytics at the start.
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        with process.importing():
            from esrgan.demo.models import DemoModels
            from esrgan.demo.page import bracket, make_page, serve

        models = DemoModels(args.model_path, args.device)
        page = make_page(models, Path(folder), args.max_megapixels, OUTPUT_FORMATS)
        serve(page, Path(folder), args.host, args.port, args.max_megapixels)
        address = f"http://{bracket(args.host)}:{args.port}"
        print(f"{address}: {', '.join(models.labels)} on {models.device}; press Ctrl-C to stop", flush=True)
        try:
            threading.Event().wait()
        finally:
            page.close(verbose=False)
    return process.OK
