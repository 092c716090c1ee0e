"""The examples in the docstrings of the public names run as they are written."""

import doctest
import inspect
import shutil
from pathlib import Path

import pytest

import esrgan
from esrgan import metrics
from esrgan.metrics import learned, niqe

ASSETS = Path(__file__).parent / "assets"
NAMES = ["Config", "load_config", "TrainOptions", "train", "Upscaler", "upscale_files", "evaluate"]
NAMES += ["load_generator", "blend", "interpolate", "RRDBNet", "EsrganError"]
PUBLIC = {name: getattr(esrgan, name) for name in NAMES}
PUBLIC |= {f"metrics.{name}": getattr(metrics, name) for name in ("finite_mean", "measure", "psnr", "ssim", "to_y")}
PUBLIC |= {"niqe": niqe.niqe, "load_learned": learned.load_learned}


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.slow
def test_examples_of_public_names_run(name, tmp_path, monkeypatch):
    shutil.copy(ASSETS / "photo.png", tmp_path)
    monkeypatch.chdir(tmp_path)
    thing = PUBLIC[name]
    module = inspect.getmodule(thing)
    tests = doctest.DocTestFinder().find(thing, name, module=module, globs={})
    examples = [test for test in tests if test.examples]
    assert examples, f"{name} has no example"
    for test in examples:
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        failures = []
        runner.run(test, out=failures.append)
        assert not runner.failures, "".join(failures)


def test_each_public_name_is_in_the_package():
    assert {*NAMES} <= {*esrgan.__all__}
