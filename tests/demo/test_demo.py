"""The page of ``esrgan demo``: what it does, its server as programs see it, and a browser as people do."""

import importlib.util
import io
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from esrgan import Upscaler, load_generator, pictures, pretrained
from esrgan.cli import main
from esrgan.demo import work
from esrgan.errors import WeightsError
from esrgan.interpolation import blend
from tests.helpers.models import make_model

PATIENCE_S = 300  # for what takes a second or a few, as machines may be busy
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_gradio = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="needs Gradio")
needs_browser = pytest.mark.skipif(
    importlib.util.find_spec("playwright") is None or CHROMIUM is None, reason="needs Playwright and Chromium"
)

# Notes every address that a process asks for.
WATCH = """
import os, sys
def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        address = arguments[1] if event == "socket.connect" else arguments[0]
        with open(os.environ["WATCHED"], "a") as file:
            print(address[0] if isinstance(address, tuple) else address, file=file)
sys.addaudithook(note)
"""


def photograph(path, size=(120, 90), **options):
    """Write something like a photograph, in the format of the suffix."""
    blots = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(blots).resize(size, Image.Resampling.BICUBIC).save(path, **options)
    return path


def exif():
    made = Image.Exif()
    made[0x010E] = "a description"
    return made.tobytes()


def expected(model, path, target):
    """What ``esrgan inference`` would write."""
    picture = pictures.read(path)
    upscaler = Upscaler.from_file(model, "cpu")
    pictures.write(target, replace(picture, frames=tuple(map(upscaler, picture.frames))))
    return target


def bad_uploads(folder):
    """Make files that are no use, with the message for each."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = zlib.compress(bytes(10_001) * 10_000, 1)
    head = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0)
    jpeg = io.BytesIO()
    photograph(jpeg, format="JPEG")
    contents = {
        "paper.pdf": (b"%PDF-1.7\n1 0 obj", "got PDF"),
        "bomb.png": (
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b""),
            "expected at most 0.5 megapixels, got 100 megapixels; make it smaller",
        ),
        "cut.jpg": (jpeg.getvalue()[: jpeg.tell() // 2], "premature end of JPEG image"),
        "empty.png": (b"", "got an empty file"),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    return {folder / name: message for name, (_, message) in contents.items()}


# What the page does


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """Give names to two models, a GAN one and its partner."""
    paths = {name: make_model(tmp_path / f"{name}.safetensors", seed) for seed, name in enumerate(("gan", "psnr"))}
    named = {"gan": pretrained.Model("with texture", "MIT", 2, psnr="psnr"), "psnr": pretrained.Model("without", "MIT")}
    for module in (pretrained.catalogue, work):
        monkeypatch.setattr(module, "MODELS", named)
    monkeypatch.setattr(pretrained.catalogue, "HERE", tmp_path)
    return paths


def test_models_are_those_that_are_here_and_the_files(pair, tmp_path):
    other = str(make_model(tmp_path / "other.pth"))
    models = work.Models([other], "cpu")
    assert models.labels == {other: "other.pth ×2", "gan": "gan ×2: with texture", "psnr": "psnr ×4: without"}
    assert [models.partner(name) for name in models.labels] == [None, "psnr", None]
    pair["psnr"].unlink()
    models = work.Models([], "cpu")
    assert list(models.labels) == ["gan"]
    assert models.partner("gan") is None
    pair["gan"].unlink()
    with pytest.raises(WeightsError, match="no model is on this machine yet"):
        work.Models([], "cpu")
    with pytest.raises(WeightsError, match="missing"):
        work.Models(["missing"], "cpu")


def test_strength_blends_a_model_with_its_partner(pair):
    models = work.Models([], "cpu")
    image = np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    gan, psnr = load_generator("gan"), load_generator("psnr")
    for alpha, file in {1: gan, 0: psnr, 0.5: blend(psnr, gan, 0.5)}.items():
        np.testing.assert_array_equal(models.upscaler("gan", alpha)(image), Upscaler.from_file(file, "cpu")(image))
    for model, alpha, message in (
        ("psnr", 0.5, "psnr: comes without a PSNR-oriented model"),
        ("gan", 1.1, "strength: expected a number from 0 to 1, got 1.1"),
        ("gan", float("nan"), "strength: expected a number from 0 to 1"),
        ("/etc/passwd", 1, "model: expected one of gan, psnr"),
    ):
        with pytest.raises(WeightsError, match=message):
            models.upscaler(model, alpha)


def test_blends_are_kept_but_not_all(pair):
    models = work.Models([], "cpu")
    first = models.upscaler("gan", 0.0)
    assert models.upscaler("gan", 0.0) is first
    for i in range(1, work.KEPT_MODELS + 1):
        models.upscaler("gan", i / 10)
    assert models.upscaler("gan", 0.0) is not first


@pytest.fixture
def enlarged(tmp_path):
    """Give the function that enlarges a picture of any kind by a model of ×2."""
    model = make_model(tmp_path / "model.pth")

    def enlarge(array, name="a.png"):
        pictures.write(tmp_path / name, pictures.Picture((array,)))
        return work.enlarge(Upscaler.from_file(model, "cpu"), tmp_path / name, tmp_path, 10**6, lambda _: None)

    return enlarge


@pytest.mark.parametrize("shape", [(200, 300, 3), (200, 300, 1), (30, 20, 4), (400, 30, 3)])
def test_a_detail_is_cut_from_whole_pictures(enlarged, shape):
    done = enlarged(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    low, high = Image.open(done.source), Image.open(done.target)
    if shape[2] == 4:
        low, high = (Image.alpha_composite(Image.new("RGBA", x.size, "white"), x).convert("RGB") for x in (low, high))
    assert done.size == high.size
    whole = low.resize(high.size, Image.Resampling.BICUBIC)
    for across, down in ((0, 0), (1, 1), (0.5, 0.3)):
        before, after = work.detail(done, across, down)
        assert before.size == after.size == tuple(min(side, work.DETAIL_PX) for side in high.size)
        left, top = (round(x * (a - b)) for x, a, b in zip((across, down), high.size, after.size, strict=True))
        box = (left, top, left + after.width, top + after.height)
        np.testing.assert_array_equal(after, high.crop(box))
        np.testing.assert_allclose(np.asarray(before, int), np.asarray(whole.crop(box), int), atol=1)


def test_the_overview_is_bounded_and_both_have_one_size(enlarged):
    done = enlarged(np.random.default_rng(0).integers(0, 256, (40, 1000, 3), dtype=np.uint8))
    assert [image.size for image in work.overview(done)] == [(work.OVERVIEW_PX, 51)] * 2
    assert done.size == (2000, 80)


def test_views_of_deep_samples_are_those_of_8_bits(enlarged):
    grey = np.linspace(0, 1, 30 * 40).reshape(30, 40, 1)
    for dtype, factor, name in ((np.uint16, 65535, "deep.png"), (np.float32, 1, "deep.tif")):
        done = enlarged((grey * factor).astype(dtype), name)
        before, after = work.overview(done)
        assert before.mode == after.mode == "L"
        half = np.asarray(before.resize((40, 30), Image.Resampling.BOX), float)
        np.testing.assert_allclose(half, grey[..., 0] * 255, atol=2)


# The command


@pytest.mark.parametrize(
    "option", ["--port=0", "--port=70000", "--port=x", "--max-megapixels=0", "--max-megapixels=nan"]
)
def test_bad_options_are_refused(option, capsys):
    with pytest.raises(SystemExit):
        main(["demo", option])
    assert "expected a" in capsys.readouterr().err


@needs_gradio
@pytest.mark.parametrize("arguments", [["-m", "missing.pth"], ["--host", "192.0.2.1"], []])
def test_what_cannot_be_served_is_told_in_a_line(arguments, tmp_path, monkeypatch, capsys, own_signals):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # Gradio makes a folder again where it was first imported
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        model = make_model(tmp_path / "model.pth")
        assert main(["demo", "-m", str(model), "--port", str(port), "--device", "cpu", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    if "missing.pth" in arguments:
        assert "missing.pth" in line
    else:
        assert line.endswith(f":{port}: cannot be listened at; --port or --host names another")


# The server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Start ``esrgan demo`` with a small model; at most half a megapixel."""
    folder = tmp_path_factory.mktemp("server")
    model = make_model(folder / "small.pth")
    (folder / "sitecustomize.py").write_text(WATCH)
    (folder / "tmp").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["-m", "esrgan", "demo", "-m", model, "--port", str(port), "--device", "cpu", "--max-megapixels", "0.5"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "WATCHED": str(folder / "addresses"),
        "TMPDIR": str(folder / "tmp"),
    }
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
        environment.pop(name, None)
    log = (folder / "log").open("w+")
    process = subprocess.Popen([sys.executable, *map(str, command)], env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + PATIENCE_S
        while url not in (text := (folder / "log").read_text()):
            assert process.poll() is None, text
            assert time.monotonic() < until, "the server does not start"
            time.sleep(0.1)
        yield SimpleNamespace(url=url, model=model, process=process, folder=folder)
    finally:
        process.kill()
        process.wait()
        log.close()


@pytest.fixture
def client(server, tmp_path):
    from gradio_client import Client

    made = Client(server.url, verbose=False, download_files=str(tmp_path / "downloads"))
    yield made
    made.close()


def submit(client, server, path):
    from gradio_client import handle_file

    return client.submit(handle_file(str(path)), str(server.model), 1, api_name="/upscale")


@needs_gradio
@pytest.mark.parametrize("name", ["photo.jpg", "Foto (1) ü.png", "two.words.tif"])
def test_a_result_is_that_of_the_command(client, server, tmp_path, name):
    path = photograph(tmp_path / name, exif=exif())
    slider, result, facts = submit(client, server, path).result(PATIENCE_S)
    target = tmp_path / path.with_stem(f"{path.stem}_sr").name
    assert Path(result).name == target.name
    assert expected(server.model, path, target).read_bytes() == Path(result).read_bytes()
    assert b"a description" in pictures.read(target).exif
    assert facts.startswith("240 × 180 px in ")
    assert facts.endswith(" s by small.pth")
    high = np.asarray(Image.open(slider[1]))
    np.testing.assert_array_equal(high, pictures.read(target).frames[0])
    bicubic = Image.open(path).resize((240, 180), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(np.asarray(Image.open(slider[0])), bicubic)
    part = client.predict(0, 100, api_name="/detail")
    np.testing.assert_array_equal(np.asarray(Image.open(part[1])), high)


@needs_gradio
def test_two_at_once_each_get_their_own(client, server, tmp_path):
    paths = [photograph(tmp_path / f"{side}.png", (side, side)) for side in (300, 200)]
    jobs = [submit(client, server, path) for path in paths]
    for path, job in zip(paths, jobs, strict=True):
        result = job.result(PATIENCE_S)[1]
        target = expected(server.model, path, tmp_path / f"{path.stem}_sr.png")
        np.testing.assert_array_equal(Image.open(result), Image.open(target))


@needs_gradio
def test_bad_uploads_get_a_line_and_the_server_goes_on(client, server, tmp_path):
    from gradio_client.exceptions import AppError

    for path, message in bad_uploads(tmp_path).items():
        with pytest.raises(AppError) as caught:
            submit(client, server, path).result(PATIENCE_S)
        assert str(caught.value).startswith(f"{path.name}: expected ")
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "/" not in str(caught.value)
    with pytest.raises(AppError, match="no picture yet"):
        client.predict(None, str(server.model), 1, api_name="/upscale")
    with pytest.raises(AppError, match="without a PSNR-oriented model"):
        client.predict(*_arguments(tmp_path, server, 0.5), api_name="/upscale")
    assert submit(client, server, photograph(tmp_path / "good.png")).result(PATIENCE_S)[1].endswith("good_sr.png")
    assert "Traceback" not in (server.folder / "log").read_text()


def _arguments(folder, server, alpha):
    from gradio_client import handle_file

    return handle_file(str(photograph(folder / "a.png"))), str(server.model), alpha


@needs_gradio
@needs_browser
def test_a_person_uploads_compares_and_downloads(server, tmp_path):
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE_S * 1000)
    path = photograph(tmp_path / "Foto (1).jpg", (200, 150), exif=exif())
    target = expected(server.model, path, tmp_path / "Foto (1)_sr.jpg")
    asked = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 375, "height": 800})
        page.set_default_timeout(PATIENCE_S * 1000)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server.url)
        page.get_by_role("button", name="Enlarge").wait_for()
        expect(page.get_by_label("Strength α").first).to_be_disabled()  # this model has no partner

        page.locator("input[type=file]").first.set_input_files(path)
        page.get_by_text("Foto (1).jpg").or_(page.get_by_text("Foto (1)")).first.wait_for()
        page.get_by_role("button", name="Enlarge").click()
        button = page.get_by_role("button", name=f"Download {target.name}")
        button.wait_for()
        with page.expect_download() as download:
            button.click()
        assert download.value.suggested_filename == target.name
        download.value.save_as(tmp_path / "downloaded.jpg")
        assert (tmp_path / "downloaded.jpg").read_bytes() == target.read_bytes()

        page.locator("#detail img").first.wait_for()
        shown = page.evaluate(
            "[...document.querySelectorAll('#detail img')].map(image => [image.naturalWidth, image.naturalHeight, "
            "image.getBoundingClientRect().width, image.getBoundingClientRect().height])"
        )
        assert shown == [[320, 300, 320, 300]] * 2  # pixel by pixel, on a phone too
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

        before = page.locator("#detail img").last.get_attribute("src")
        page.get_by_label("% from the left").first.fill("100")
        page.keyboard.press("Tab")
        page.wait_for_function(
            "before => [...document.querySelectorAll('#detail img')].at(-1).src != before", arg=before
        )

        page.get_by_label("Clear").first.click()
        page.locator("input[type=file]").first.set_input_files(
            {"name": "paper.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.7"}
        )
        page.get_by_text("paper").first.wait_for()
        page.get_by_role("button", name="Enlarge").click()
        expect(page.get_by_test_id("toast-body")).to_contain_text("paper.pdf: expected a PNG, JPEG")

        page.get_by_label("Clear").first.click()
        page.locator("button.gallery-item").last.click()
        page.get_by_text("coffee").first.wait_for()
        page.get_by_role("button", name="Enlarge").click()
        page.get_by_role("button", name="Download coffee_sr.png").wait_for()
        browser.close()
    assert {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))} == {server.url[7:]}


@needs_gradio
def test_the_server_calls_nobody(server):
    urllib.request.urlopen(server.url).close()
    assert set((server.folder / "addresses").read_text().split()) <= {"127.0.0.1", "localhost"}


@needs_gradio
def test_the_end_leaves_nothing_behind(server):
    (folder,) = (server.folder / "tmp").glob("esrgan-demo-*")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(PATIENCE_S) == 130
    assert not folder.exists()
