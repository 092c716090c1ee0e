"""The named models: the bundled ones, and the download of public ones."""

import hashlib
import json
import os
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import safetensors
import skimage
import torch

from esrgan import Config, Upscaler, images, load_generator, pretrained
from esrgan import download as downloading
from esrgan.cli import main
from esrgan.demo.models import DemoModels
from esrgan.errors import WeightsError
from esrgan.metrics import measure
from esrgan.pretrained import MODELS, catalogue
from esrgan.resize import bicubic
from tests.helpers.dataset_server import run_server
from tests.helpers.models import make_model

BUNDLED = [name for name, model in MODELS.items() if model.source is None]
OURS = [name for name in BUNDLED if name.startswith("esrgan-")]
ROOT = Path(__file__).parent.parent.parent
CARD = (Path(pretrained.__file__).parent / "README.md").read_text(encoding="utf-8")


def photograph(name):
    image = images.read_pixels(Path(skimage.__path__[0]) / "data" / f"{name}.png", 3)[:128, 80:240]
    return image, bicubic(image, Fraction(1, 4))


def test_catalogue_is_consistent():
    assert pretrained.DEFAULT_MODEL in BUNDLED
    for name, model in MODELS.items():
        assert re.fullmatch("[a-z0-9-]+", name)
        assert model.psnr_model is None or (
            model.psnr_model in MODELS and MODELS[model.psnr_model].scale == model.scale
        )
        if model.source:
            assert model.source.url.startswith("https://")
            assert re.fullmatch("[0-9a-f]{64}", model.source.sha256)


def test_bundled_model_of_others_matches_its_card():
    name = "realesr-animevideov3"
    path = pretrained.resolve(name)
    file = load_generator(name)
    assert file.describe().startswith("SRVGGNetCompact ×4 64/16, BasicSR names; RealESR AnimeVideo v3 by xinntao")
    assert file.licence == "BSD-3-Clause"
    assert f"\n| `{name}` | {hashlib.sha256(path.read_bytes()).hexdigest()} |\n" in CARD
    assert path.stat().st_size < 1_300_000
    notice = "Copyright (c) 2021, Xintao Wang"
    assert json.loads(safetensors.safe_open(path, framework="pt").metadata()["notice"]) == notice
    assert f"BSD 3-Clause License\n\n{notice}\n" in (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8")
    # The output was compared with that of ncnn for the file that it comes from.
    low = torch.arange(3 * 8 * 8).reshape(1, 3, 8, 8) % 17 / 16
    with torch.inference_mode():
        high = file.build()(low)
    assert float(high.double().sum()) == pytest.approx(1516.375, abs=0.01)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.slow
def test_bundled_model_matches_its_card(name):
    path = pretrained.resolve(name)
    with safetensors.safe_open(path, framework="pt") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F16"}  # noqa: SIM118
        metadata = file.metadata()
    generator = load_generator(name)
    assert json.loads(metadata["name"]) == name
    assert generator.stage == ("pretraining" if name.endswith("-psnr") else "training")
    config = Config.model_validate(generator.hparams)
    if config.generator.type == "compact":
        assert str(generator.architecture) == f"SRVGGNetCompact ×4 64/{config.generator.num_conv}"
    else:
        assert str(generator.architecture) == f"RRDBNet ×4 64/32/{config.generator.num_basic_blocks}"
    assert f"\n| `{name}` | {hashlib.sha256(path.read_bytes()).hexdigest()} |\n" in CARD
    assert not re.search(r'"(/|[A-Za-z]:)', metadata["hparams"]), "contains a path of the training machine"
    assert path.stat().st_size <= {"compact": 2_000_000, "full": 34_000_000}.get(name.split("-")[1], 10_000_000)


@pytest.mark.parametrize("name", BUNDLED)
@pytest.mark.slow
def test_colour_fix_removes_the_drift_of_bundled_models(name):
    image = photograph("chelsea")[0][40:72, 60:100]
    for method in ("mean", "low"):
        high = Upscaler.from_file(name, "cpu", "fp32", color_fix=method)(image)
        assert np.abs(high.mean((0, 1)) - image.mean((0, 1))).max() < 0.2


@pytest.mark.parametrize(("name", "drift"), [("esrgan-lite", 1.5), ("esrgan-full", 1.6), ("esrgan-photo", 2.9)])
@pytest.mark.slow
def test_bundled_pair_sharpens_and_preserves_colours(name, drift):
    """Compare both models with bicubic on photographs that they were not trained on."""
    psnr, gan = (Upscaler.from_file(each, "cpu", "fp32") for each in (MODELS[name].psnr_model, name))
    for photo in ("chelsea", "coffee", "astronaut"):
        high, low = photograph(photo)
        smooth, faithful, textured = bicubic(low, 4), psnr(low), gan(low)
        assert measure(faithful, high, 4)["psnr_y"] > measure(smooth, high, 4)["psnr_y"] + 0.4
        assert measure(textured, high, 4)["psnr_y"] > measure(smooth, high, 4)["psnr_y"] - 2
        assert laplacian(smooth) < laplacian(faithful) < laplacian(textured)
        for result in (faithful, textured):
            assert np.abs(result.mean((0, 1)) - high.mean((0, 1))).max() < drift


def laplacian(image):
    grey = image.astype(float).mean(2)
    second = 4 * grey[1:-1, 1:-1] - grey[2:, 1:-1] - grey[:-2, 1:-1] - grey[1:-1, 2:] - grey[1:-1, :-2]
    return np.abs(second).mean()


@pytest.mark.usefixtures("winograd_on_every_cpu")
def test_upscaler_defaults_to_the_bundled_model():
    assert re.fullmatch(
        r"Upscaler\(esrgan-photo: RRDBNet ×4 64/32/6, GAN stage; on cpu in float32 \(Winograd\)\)",
        repr(Upscaler.from_file(device="cpu")),
    )


def run(tmp_path, *arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "esrgan", *map(str, arguments)]
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_inference_defaults_to_the_bundled_model(tmp_path):
    images.write_pixels(tmp_path / "photo.png", photograph("coffee")[1])
    done = run(tmp_path, "inference", "photo.png", "--precision", "fp32")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("esrgan-photo: RRDBNet ×4 64/32/6, GAN stage; on cpu in float32")
    textured = images.read_pixels(tmp_path / "photo_sr.png", 3)
    done = run(tmp_path, "inference", "photo.png", "--alpha", "0.5", "--overwrite", "--precision", "fp32")
    assert done.returncode == 0, done.stderr
    assert "esrgan-photo and esrgan-photo-psnr: RRDBNet ×4 64/32/6, interpolated, α = 0.5" in done.stdout
    assert laplacian(images.read_pixels(tmp_path / "photo_sr.png", 3)) < laplacian(textured)


@pytest.mark.slow
def test_alpha_without_models_blends_the_bundled_pair(tmp_path):
    done = run(tmp_path, "interpolate", "--alpha", "0.8")
    assert done.returncode == 0, done.stderr
    assert "0.2 × esrgan-lite-psnr + 0.8 × esrgan-lite" in done.stdout
    blend = load_generator(tmp_path / "esrgan-lite_alpha_0.8.pth")
    psnr, gan = load_generator("esrgan-lite-psnr"), load_generator("esrgan-lite")
    for name, value in blend.state.items():
        torch.testing.assert_close(value, 0.2 * psnr.state[name] + 0.8 * gan.state[name])
    assert blend.alpha == pytest.approx(0.8)
    assert blend.licence == "Apache-2.0"
    again = run(tmp_path, "interpolate", "--alpha", "0.8")
    assert again.returncode == 2
    assert "already exists; use --overwrite to replace it" in again.stderr


@pytest.mark.slow
def test_model_without_psnr_partner_cannot_be_blended(tmp_path):
    for command in (["inference", "-m", "bsrgan", "x.png"], ["interpolate", "--esrgan-model-path", "bsrgan"]):
        done = run(tmp_path, *command, "--alpha", "0.5")
        assert done.returncode == 2
        assert "bsrgan: has no partner to blend with" in done.stderr
    done = run(tmp_path, "inference", "-m", "esrgan-lite-psnr", "x.png", "--alpha", "0.5")
    assert done.returncode == 2
    assert "esrgan-lite-psnr: this is the partner of" in done.stderr


@pytest.mark.slow
def test_teacher_writes_pairs_and_resumes(tmp_path):
    original, _ = photograph("coffee")
    (tmp_path / "photos").mkdir()
    images.write_pixels(tmp_path / "photos" / "coffee.png", original[:50, :41])
    command = [sys.executable, str(ROOT / "scripts/teacher.py"), "esrgan-lite", "photos", "pairs", "--crops", "4"]
    for missing in ((), ("hr/coffee-1.png",)):
        for name in missing:
            (tmp_path / "pairs" / name).unlink()
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        written = missing or [f"hr/coffee-{number}.png" for number in range(4)]
        assert done.stdout.split() == [f"pairs/{name}" for name in written]
    for number in range(4):
        high, low = (images.read_pixels(tmp_path / f"pairs/{key}/coffee-{number}.png", 3) for key in ("hr", "lr"))
        assert high.shape == (48, 40, 3)
        assert low.shape == (12, 10, 3)


@pytest.mark.slow
def test_teacher_names_the_photographs_that_it_cannot_use(tmp_path):
    original = photograph("coffee")[0]
    half = np.full((40, 40, 1), 128, np.uint8)
    for name, channels in (("a/1.png", 3), ("b/1.png", 4), ("b/1.bmp", 3)):
        pixels = original[:40, :40] if channels == 3 else np.concatenate([original[:40, :40], half], 2)
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        images.write_pixels(tmp_path / "photos" / name, pixels)
    command = [sys.executable, str(ROOT / "scripts/teacher.py")]
    done = subprocess.run(
        [*command, "esrgan-lite", "photos", "pairs", "--crops", "1"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stdout.split() == ["pairs/hr/a/1-0.png", "pairs/hr/b/1-0.png"]
    assert done.stderr == "error: photos/b/1.png: its crops would have the names of those of photos/b/1.bmp\n"
    (tmp_path / "photos/b/1.bmp").unlink()
    images.write_pixels(tmp_path / "photos/small.png", original[:3, :40])
    done = subprocess.run([*command, "esrgan-lite", "photos", "rgb"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    alpha, small = done.stderr.splitlines()
    assert alpha.startswith("error: photos/b/1.png: expected ")
    assert small == "error: photos/small.png: expected at least 4×4 pixels, got 40×3; remove it"
    (tmp_path / "photos/small.png").unlink()
    model = make_model(tmp_path / "rgba.pth", channels=4)
    done = subprocess.run([*command, str(model), "photos", "rgba"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert images.read_pixels(tmp_path / "rgba/lr/b/1-0.png", 4).shape[2] == 4


def test_model_name_takes_precedence_over_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "model.pth").rename("esrgan-lite-psnr")
    assert load_generator("esrgan-lite-psnr").stage == "pretraining"
    assert load_generator("./esrgan-lite-psnr").architecture != load_generator("esrgan-lite-psnr").architecture


def test_missing_bundled_model_is_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(catalogue, "BUNDLED_FOLDER", tmp_path)
    assert main(["models", "esrgan-lite"]) == 1
    assert "esrgan-lite.safetensors: this bundled model is missing; reinstall esrgan" in capsys.readouterr().err


def test_a_path_may_begin_with_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert pretrained.resolve("~/models/x.pth") == tmp_path / "models/x.pth"
    assert pretrained.resolve(Path("~$draft.pth")) == Path("~$draft.pth")


@pytest.mark.slow
def test_unknown_model_name_is_reported(tmp_path):
    images.write_pixels(tmp_path / "photo.png", photograph("coffee")[1])
    done = run(tmp_path, "inference", "-m", "esrgn", "photo.png")
    assert done.returncode == 2
    assert "esrgn: no such file or model name (`esrgan models` lists the names)" in done.stderr
    with pytest.raises(WeightsError, match=r"^model\.pth: no such file$"):
        load_generator("model.pth")


@pytest.fixture
def model_server(tmp_path, monkeypatch):
    """A server of a model that is in the catalogue as "public"."""
    content = make_model(tmp_path / "made.pth").read_bytes()
    monkeypatch.setenv("ESRGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(downloading, "RETRY_DELAY_S", 0.0)
    monkeypatch.setattr(downloading, "_CHUNK", 10_000)
    with run_server() as server:
        server.files["model.pth"] = content
        source = catalogue.ModelSource(
            server.url("model.pth"), hashlib.sha256(content).hexdigest(), len(content), "this test"
        )
        monkeypatch.setitem(MODELS, "public", catalogue.PretrainedModel("a test", "MIT", source=source))
        yield server


def test_public_model_is_downloaded_only_on_request(model_server, tmp_path, capsys):
    with pytest.raises(WeightsError, match=r"public: not downloaded yet; run `esrgan models public` first"):
        load_generator("public")
    assert not model_server.requests
    assert main(["models"]) == 0
    assert re.search(r"public +×4 +MIT +to download, [\d.]+ [kM]B +a test", capsys.readouterr().out)
    assert main(["models", "public"]) == 0
    assert "checksum verified" in capsys.readouterr().out
    assert len(model_server.requests) == 1
    assert load_generator("public").state.keys() == load_generator(tmp_path / "made.pth").state.keys()
    assert [path.name for path in (tmp_path / "cache/models").iterdir()] == ["public.pth"]
    assert main(["models", "public"]) == 0
    assert len(model_server.requests) == 1
    assert main(["models"]) == 0
    assert re.search(r"public .* downloaded ", capsys.readouterr().out)


def test_interrupted_download_resumes(model_server, tmp_path):
    model_server.etags["model.pth"] = '"1"'
    model_server.faults = ["cut 20000", "cut 15000"]
    path = pretrained.download_model("public")
    assert path.read_bytes() == model_server.files["model.pth"]
    assert [asked for _, asked, _ in model_server.requests] == [None, "bytes=20000-", "bytes=35000-"]


def test_download_with_wrong_checksum_is_rejected(model_server, tmp_path, capsys):
    content = bytearray(model_server.files["model.pth"])
    content[-100] ^= 1
    model_server.files["model.pth"] = bytes(content)
    assert main(["models", "public", "esrgan-lite"]) == 1
    output = capsys.readouterr()
    assert "sha256:" in output.err
    assert "twice" in output.err
    assert output.err.count("\n") == 1
    assert "esrgan-lite: " in output.out
    assert not (tmp_path / "cache/models/public.pth").exists()
    with pytest.raises(WeightsError, match="not downloaded yet"):
        load_generator("public")


def test_damaged_download_is_detected_on_next_use(model_server, tmp_path, capsys):
    path = pretrained.download_model("public")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="delete it and run this again"):
        load_generator("public")
    assert main(["models", "public"]) == 1
    assert "delete it and run this again" in capsys.readouterr().err
    path.unlink()
    path.mkdir()
    assert main(["models", "public"]) == 1
    assert "cannot be read: Is a directory; move it away" in capsys.readouterr().err


def test_second_download_keeps_the_finished_one(model_server, monkeypatch):
    lock = downloading.lock

    def slow_lock(path, busy):
        monkeypatch.setattr(downloading, "lock", lock)
        pretrained.download_model("public")  # stands for another process, between opening and locking
        return lock(path, busy)

    monkeypatch.setattr(downloading, "lock", slow_lock)
    path = pretrained.download_model("public")
    assert path.read_bytes() == model_server.files["model.pth"]
    assert len(model_server.requests) == 1


def test_closed_output_pipe_prints_no_error():
    listing = subprocess.Popen(
        [sys.executable, "-m", "esrgan", "models"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    listing.stdout.close()
    assert listing.stderr.read() == b""
    listing.stderr.close()
    assert listing.wait() == 1


def test_missing_home_folder_is_reported_with_a_remedy(monkeypatch, capsys):
    for variable in ("ESRGAN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user whom the system does not know
    assert main(["models", "bsrgan"]) == 1
    assert "no home folder found; set ESRGAN_CACHE" in capsys.readouterr().err


def test_commands_that_show_models_need_no_home_folder(tmp_path, monkeypatch, capsys):
    for variable in ("ESRGAN_CACHE", "XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert re.search("esrgan-lite .*bundled", out)
    assert re.search("bsrgan .*to download", out)
    assert "no home folder found; set ESRGAN_CACHE to a folder for downloads" in out
    assert main(["doctor", "--data-root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "downloads            no home folder found; set ESRGAN_CACHE" in out
    assert "vgg19                for the perceptual loss: no home folder found; set TORCH_HOME" in out
    labels = DemoModels([], "cpu").labels
    assert "esrgan-lite" in labels
    assert "bsrgan" not in labels


def test_unknown_name_downloads_nothing(model_server, capsys):
    assert main(["models", "public", "nothing"]) == 2
    assert "nothing: no such model; `esrgan models` lists them" in capsys.readouterr().err
    assert not model_server.requests


def test_training_starts_from_a_name(tmp_path):
    from esrgan.config import Config
    from esrgan.training.start import start_from_file
    from tests.helpers.runs import find_differences

    config = Config.model_validate({"generator": {"num_basic_blocks": 6}})
    start = start_from_file(Path("esrgan-lite-psnr"), config, "all")
    assert start.stage == "training"
    assert not find_differences(start.generator_weights, load_generator("esrgan-lite-psnr").state)


def test_ctrl_c_in_a_download_says_how_to_resume(model_server, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("esrgan.download._receive", interrupt)
    assert main(["models", "public"]) == 130
    assert capsys.readouterr().err == "interrupted: the same command resumes the download\n"
