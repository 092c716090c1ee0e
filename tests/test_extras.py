"""Upscaling works without the extras; commands that need one name it."""

import subprocess
import sys
import textwrap

import pytest

from esrgan import extras, images
from esrgan.cli import main
from esrgan.errors import EsrganError
from tests.helpers.models import make_model

OPTIONAL_MODULES = sorted({module for modules, _ in extras.EXTRAS.values() for module in modules})


def run_without_extras(tmp_path, *arguments):
    """Run a command in a process that cannot find any module of the extras."""
    script = f"""
        import sys

        class Nothing:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {OPTIONAL_MODULES}:
                    raise ModuleNotFoundError(name)

        sys.meta_path.insert(0, Nothing())
        import importlib.util
        found = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name in {OPTIONAL_MODULES} else found(name, *rest)
        from esrgan.cli import main
        sys.exit(main({list(map(str, arguments))}))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)


@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path / "model.pth")


@pytest.mark.slow
def test_upscaling_works_without_extras(tmp_path, model, write_images):
    write_images(tmp_path / "photos", 2)
    done = run_without_extras(tmp_path, "inference", "-m", model, "photos", "-o", "out", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert len(images.find_images([tmp_path / "out"])) == 2


@pytest.mark.slow
def test_evaluation_works_without_extras(tmp_path, model, write_images):
    write_images(tmp_path / "photos", 2)
    done = run_without_extras(tmp_path, "test", model, "-d", "photos", "--no-cache")
    assert done.returncode == 0, done.stderr
    for arguments, lacking in (
        (["-d", "skimage"], "scikit-image"),
        (["-d", "photos", "--metrics", "vgg16"], "torchvision"),
    ):
        done = run_without_extras(tmp_path, "test", model, *arguments, "--no-cache")
        assert done.returncode == 2, done.stdout + done.stderr
        assert lacking in done.stderr
        assert "pip install 'esrgan[" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["train", "config.json"], "train"),
        (["export", "model.pth", "out.onnx"], "export"),
        (["demo"], "demo"),
        (["bulk", "photos", "-o", "out"], "ray"),
        (["interpolate", "--sweep", "2", "-d", "photos", "-o", "out"], "metrics"),
    ],
)
@pytest.mark.slow
def test_commands_name_the_missing_extra(tmp_path, model, arguments, extra):
    (tmp_path / "config.json").write_text("{}")
    done = run_without_extras(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    modules, purpose = extras.EXTRAS[extra]
    missing = f"{', '.join(modules)}: not installed, but needed for {purpose}"
    assert f"{missing}; pip install 'esrgan[{extra}]'" in done.stderr


@pytest.mark.slow
def test_doctor_and_info_work_without_extras(tmp_path, model):
    done = run_without_extras(tmp_path, "doctor")
    assert done.returncode == 0, done.stderr
    assert "[train]              training and logging: albumentations, cv2, skimage" in done.stdout
    assert run_without_extras(tmp_path, "info", model).returncode == 0


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ImportError('DLL load failed')", "onnxruntime: cannot be imported: DLL load failed; try `pip install "),
        ("import esrgan_none", "esrgan_none: not installed; try `pip install esrgan_none`"),
    ],
)
def test_a_broken_package_is_named_on_one_line(tmp_path, model, monkeypatch, capsys, code, reason):
    pytest.importorskip("onnxruntime")
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime/__init__.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    assert main(["export", str(model), str(tmp_path / "out.onnx")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {reason}")


def test_a_broken_package_does_not_end_a_run_over_files(tmp_path, model, monkeypatch, capsys, write_images):
    write_images(tmp_path / "photos", 1)

    def fail(*_):
        import esrgan_none  # noqa: F401

    monkeypatch.setattr("esrgan.inference.files.upscale_image", fail)
    arguments = ["inference", "-m", model, tmp_path / "photos", "-o", tmp_path / "out", "--device", "cpu"]
    assert main([str(each) for each in arguments]) == 1
    assert ".png: esrgan_none: not installed; try" in capsys.readouterr().err


def test_require_extra_accepts_installed_modules(monkeypatch):
    extras.require_extra("train")
    monkeypatch.setattr(extras, "missing_modules", lambda extra: ["wandb"])
    with pytest.raises(
        EsrganError, match=r"^wandb: not installed, but needed for training and logging; pip install 'esrgan\[train\]'$"
    ):
        extras.require_extra("train")
