"""``esrgan doctor``."""

import re
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

from esrgan.cli import doctor, main


def run_doctor_on_datasets(root, capsys, monkeypatch):
    for part in ("_versions", "_devices", "_extras", "_models"):
        monkeypatch.setattr(doctor, part, lambda: ())
    assert main(["doctor", "--data-root", str(root)]) == 0
    return capsys.readouterr().out


def test_doctor_reports_dataset_problems(tmp_path, capsys, monkeypatch, write_images):
    write_images(tmp_path / "DIV2K_train_HR", 3)
    low = tmp_path / "DIV2K_train_LR_bicubic/X4"
    low.mkdir(parents=True)
    names = sorted(path.name for path in (tmp_path / "DIV2K_train_HR").iterdir())
    (low / names[0]).write_bytes((tmp_path / "DIV2K_train_HR" / names[0]).read_bytes())
    (tmp_path / "Set5/GTmod12").mkdir(parents=True)
    write_images(tmp_path / "Flickr2K/Flickr2K_HR", 2)
    monkeypatch.setattr("esrgan.extras.missing_modules", lambda extra: ["skimage"])
    out = run_doctor_on_datasets(tmp_path, capsys, monkeypatch)
    unmatched = f"expected an LR image in {low} for each HR image, got 2 HR images without partner ({names[1]}, "
    assert f"  div2k                dataset {tmp_path}/DIV2K_train_HR: {unmatched}" in out
    assert f"\n{' ' * 23}expected the folder {tmp_path}/DIV2K_valid_HR, got nothing; download it with: " in out
    assert (
        f"  set5                 dataset {tmp_path}/Set5/GTmod12: expected images in this folder, got none; put" in out
    )
    assert f"  set14                missing; download it with: esrgan prepare set14 --data-root {tmp_path}\n" in out
    assert "  flickr2k             2 training images\n" in out
    assert out.count("expected validation images, got only training images; validate on div2k") == 1
    assert "  skimage              expected the scikit-image package, got none; pip install 'esrgan[train]'\n" in out


def test_doctor_reports_a_data_root_that_is_a_file(tmp_path, capsys, monkeypatch):
    (tmp_path / "afile").touch()
    out = run_doctor_on_datasets(tmp_path / "afile", capsys, monkeypatch)
    assert f"folder               {tmp_path}/afile: expected a folder, got a file\n" in out


def test_doctor_reports_unreadable_folders(tmp_path, capsys, monkeypatch):
    def refuse(path, *, stat=Path.stat, **options):
        if tmp_path / "closed" in path.parents:
            raise PermissionError(13, "Permission denied")
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)  # simulated, because root may enter any folder
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "closed/torch"))
    assert main(["doctor", "--data-root", str(tmp_path / "closed/data")]) == 0
    out = capsys.readouterr().out
    denied = "a path that cannot be read: Permission denied"
    assert f"folder               {tmp_path}/closed/data: expected a folder, got {denied}" in out
    assert f"vgg19                for the perceptual loss: {denied}, {tmp_path}/closed/torch/" in out
    assert f"set5                 expected the folder {tmp_path}/closed/data/Set5/GTmod12, got {denied}; fix" in out


def test_doctor_lists_what_is_present_and_missing(tmp_path, capsys, write_images, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    write_images(tmp_path / "Set5/GTmod12", 5)
    assert main(["doctor", "--data-root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for line in (
        r"esrgan +" + re.escape(version("esrgan")),
        r"cpu +\d+ threads?, [\d.]+ GB of [\d.]+ GB free, float32",
        r"limits +CPU quota [\w.]+, memory limit .*, .* of shared memory free",
        r"cuda +none: PyTorch is built",
        r"set5 +5 training images, 5 validation images",
        r"set14 +missing; download it with: esrgan prepare set14",
        r"skimage +4 training images, 2 validation images",
        r"vgg19 +for the perceptual loss: not downloaded yet",
        r"by name ",
    ):
        assert re.search(rf"^  {line}", out, re.MULTILINE), line


@pytest.mark.parametrize("failing", ["get_device_name", "mem_get_info", "get_device_capability"])
def test_doctor_shows_a_gpu_that_cannot_be_used(capsys, monkeypatch, failing):
    def fail(_):
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable\nmore about it")

    answers = {"get_device_name": "H100", "mem_get_info": (10**10, 10**11), "get_device_capability": (9, 0)}
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("esrgan.devices.find_gpu_problem", lambda _: None)
    for name, answer in answers.items():
        monkeypatch.setattr(
            f"torch.cuda.{name}",
            lambda place, name=name, answer=answer: fail(0) if place.index == 0 and name == failing else answer,
        )
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    name = "a GPU" if failing == "get_device_name" else "H100"
    assert f"  cuda:0               {name}, cannot be used: CUDA error: all CUDA-capable devices are busy" in out
    assert "  cuda:1               H100, 10.0 GB of 100.0 GB free, float16, bfloat16, TF32" in out


def test_doctor_reports_an_unsupported_gpu_as_unusable(capsys, monkeypatch):
    answers = {"device_count": 1, "get_device_name": "GTX 1080", "mem_get_info": (8, 9)}
    for name, answer in answers.items():
        monkeypatch.setattr(f"torch.cuda.{name}", lambda *_, answer=answer: answer)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: (6, 1))
    monkeypatch.setattr("esrgan.devices.find_gpu_problem", lambda _: "it is too old")
    assert main(["doctor"]) == 0
    assert "  cuda:0               GTX 1080, cannot be used: it is too old\n" in capsys.readouterr().out


def test_doctor_names_the_missing_extra(capsys, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torchmetrics" else find(name))
    assert main(["doctor"]) == 0
    assert "torchmetrics missing; pip install 'esrgan[metrics]'" in capsys.readouterr().out


def test_doctor_names_a_torchvision_for_another_pytorch(tmp_path, capsys, monkeypatch):
    (tmp_path / "torchvision.py").write_text('raise RuntimeError("operator torchvision::nms does not exist")')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    assert main(["doctor"]) == 0
    found = (
        "expected a build for PyTorch .*, got another one .operator torchvision::nms does not exist.; reinstall both"
    )
    assert re.search(f"  vgg19 .*for the perceptual loss: torchvision: {found}", capsys.readouterr().out)


def test_doctor_reports_that_there_is_no_temporary_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    assert main(["doctor", "--data-root", str(tmp_path)]) == 0
    problem = "no folder for temporary files can be written; set TMPDIR to one that can"
    assert f"temporary files      {problem}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["demo"], ["export", "esrgan-compact", "a.onnx"], ["export", "esrgan-compact", "a.pt2"]]
)
def test_commands_that_need_temporary_files_name_the_remedy(tmp_path, capsys, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("esrgan.extras.missing_modules", lambda _: [])
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    assert main(arguments) == 2
    assert (
        capsys.readouterr().err == "error: no folder for temporary files can be written; set TMPDIR to one that can\n"
    )
