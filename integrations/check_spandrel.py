"""Compare our outputs with those of spandrel: python integrations/check_spandrel.py [MODEL ...].

spandrel loads the models of chaiNNer and of ComfyUI's own upscaling node. Each model is written in every form that it
can read, loaded by it, and applied to an image of noise in float32. It needs ``pip install spandrel``.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import spandrel
import torch

from esrgan import EsrganError, load_generator
from esrgan.export import export_weights
from esrgan.pretrained import MODELS, is_on_disk, resolve
from esrgan.weights import GeneratorFile, RRDBNetArchitecture

SUFFIXES = (".pth", ".pt", ".safetensors")
DIALECTS = ("basicsr", "esrgan-new", "esrgan-old")  # spandrel does not know "earlier"
# spandrel multiplies and adds in two operations instead of one, so the last bits of float32 differ.
TOLERANCE = 1e-5


def write_forms(file: GeneratorFile, folder: Path) -> Iterator[Path]:
    """Write a generator as ``esrgan export`` does, in each combination of suffix, names and precision."""
    dialects = DIALECTS if isinstance(file.architecture, RRDBNetArchitecture) else DIALECTS[:1]
    for suffix, dialect, half in itertools.product(SUFFIXES, dialects, (False, True)):
        path = folder / f"{dialect}{'-half' if half else ''}{suffix}"
        export_weights(file, path, dialect, half=half)
        yield path


def compare(path: Path) -> float:
    """Return the largest difference between the outputs of spandrel and ours for a file.

    Raises:
        spandrel.UnsupportedModelError: If spandrel does not know the network.
        RuntimeError: If spandrel expects a network of other sizes.
        ValueError: If the factors or the numbers of channels differ.
    """
    theirs, ours = spandrel.ModelLoader().load_from_file(path), load_generator(path)
    expected = (ours.architecture.scale_factor, ours.architecture.in_channels)
    if (theirs.scale, theirs.input_channels) != expected:
        raise ValueError(f"factor and channels: {(theirs.scale, theirs.input_channels)} instead of {expected}")
    low = torch.rand(1, ours.architecture.in_channels, 24, 20, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        high = ours.build()(low)
        return float((theirs.model(low) - high).abs().max() / high.abs().max())


def check(model: str) -> bool:
    """Print the result for a model, and each form that fails; return whether all outputs are equal up to rounding."""
    differences, failures = [], 0
    with tempfile.TemporaryDirectory() as folder:
        for path in itertools.chain([Path(resolve(model))], write_forms(load_generator(model), Path(folder))):
            try:
                differences.append(compare(path))
                if differences[-1] <= TOLERANCE:
                    continue
                found = f"the outputs differ by {differences[-1]:.1e}"
            except (spandrel.UnsupportedModelError, RuntimeError, ValueError) as error:
                found = f"refused by spandrel: {' '.join(str(error).split())[:160] or 'unknown network'}"
            failures += 1
            print(f"{model}: {path.name}: {found}")
    largest = f", largest difference {max(differences):.1e}" if differences else ""
    print(f"{model}: {len(differences)} files loaded, {failures} failed{largest}")
    return not failures


def main() -> int:
    """Check the models that the command line names, or all bundled ones."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    on_disk = [name for name in MODELS if is_on_disk(name)]
    parser.add_argument("models", nargs="*", metavar="MODEL", help="name or file (default: all models on this machine)")
    try:
        results = [check(model) for model in parser.parse_args().models or on_disk]
    except EsrganError as error:
        parser.error(str(error))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
