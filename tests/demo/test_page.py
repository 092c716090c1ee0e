"""The page of ``esrgan demo``, tested through its API and in a browser."""

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

from esrgan import Upscaler, images
from esrgan.cli import main
from tests.helpers.models import make_model

TIMEOUT_S = 300  # for operations that take a few seconds unless the machine is busy
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_gradio = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="needs Gradio")
needs_browser = pytest.mark.skipif(
    importlib.util.find_spec("playwright") is None or CHROMIUM is None, reason="needs Playwright and Chromium"
)


# Logs every network address that a process looks up or connects to.
AUDIT_HOOK = """
import os, sys
def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        address = arguments[1] if event == "socket.connect" else arguments[0]
        with open(os.environ["ADDRESS_LOG"], "a") as file:
            print(address[0] if isinstance(address, tuple) else address, file=file)
sys.addaudithook(note)
"""


def photograph(path, size=(120, 90), **options):
    """Write an image that resembles a photograph, in the format of the suffix."""
    blots = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(blots).resize(size, Image.Resampling.BICUBIC).save(path, **options)
    return path


def exif():
    made = Image.Exif()
    made[0x010E] = "a description"
    return made.tobytes()


def expected(model, path, target):
    """Write the output that ``esrgan inference`` would write."""
    data = images.read_image(path)
    upscaler = Upscaler.from_file(model, "cpu")
    images.write_image(target, replace(data, frames=tuple(map(upscaler, data.frames))))
    return target


def bad_uploads(folder):
    """Write files that cannot be upscaled; return the expected message for each."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = zlib.compress(bytes(10_001) * 10_000, 1)
    head = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0)
    jpeg = io.BytesIO()
    photograph(jpeg, format="JPEG")
    contents = {
        "paper.pdf": (b"%PDF-1.7\n1 0 obj", "got a PDF document"),
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


@pytest.mark.parametrize(
    "option", ["--port=0", "--port=70000", "--port=x", "--max-megapixels=0", "--max-megapixels=nan"]
)
def test_bad_options_are_rejected(option, capsys):
    with pytest.raises(SystemExit):
        main(["demo", option])
    assert "expected a" in capsys.readouterr().err


@needs_gradio
@pytest.mark.parametrize("arguments", [["-m", "missing.pth"], ["--host", "192.0.2.1"], []])
@pytest.mark.slow
def test_startup_failures_print_one_line(arguments, tmp_path, monkeypatch, capsys, foreground_signals):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # Gradio recreates the folder of its first import
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
        assert line.endswith(f":{port}: cannot listen on this address; choose another --host or --port")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Start ``esrgan demo`` with a small model and a limit of half a megapixel."""
    folder = tmp_path_factory.mktemp("server")
    model = make_model(folder / "small.pth")
    (folder / "sitecustomize.py").write_text(AUDIT_HOOK)
    (folder / "tmp").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["-m", "esrgan", "demo", "-m", model, "--port", str(port), "--device", "cpu", "--max-megapixels", "0.5"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "ADDRESS_LOG": str(folder / "addresses"),
        "TMPDIR": str(folder / "tmp"),
    }
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
        environment.pop(name, None)
    log = (folder / "log").open("w+")
    process = subprocess.Popen([sys.executable, *map(str, command)], env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + TIMEOUT_S
        while url not in (text := (folder / "log").read_text()):
            assert process.poll() is None, text
            assert time.monotonic() < until, "the server did not start"
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
@pytest.mark.slow
def test_result_equals_the_inference_command(client, server, tmp_path, name):
    path = photograph(tmp_path / name, exif=exif())
    slider, result, facts = submit(client, server, path).result(TIMEOUT_S)
    target = tmp_path / path.with_stem(f"{path.stem}_sr").name
    assert Path(result).name == target.name
    assert expected(server.model, path, target).read_bytes() == Path(result).read_bytes()
    assert b"a description" in images.read_image(target).exif
    assert facts.startswith("240 × 180 px in ")
    assert facts.endswith(" s by small.pth")
    high = np.asarray(Image.open(slider[1]))
    np.testing.assert_array_equal(high, images.read_image(target).frames[0])
    bicubic = Image.open(path).resize((240, 180), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(np.asarray(Image.open(slider[0])), bicubic)
    part = client.predict(0, 100, api_name="/detail")
    np.testing.assert_array_equal(np.asarray(Image.open(part[1])), high)


@needs_gradio
@pytest.mark.slow
def test_concurrent_users_get_their_own_results(client, server, tmp_path):
    paths = [photograph(tmp_path / f"{side}.png", (side, side)) for side in (300, 200)]
    jobs = [submit(client, server, path) for path in paths]
    for path, job in zip(paths, jobs, strict=True):
        result = job.result(TIMEOUT_S)[1]
        target = expected(server.model, path, tmp_path / f"{path.stem}_sr.png")
        np.testing.assert_array_equal(Image.open(result), Image.open(target))


@needs_gradio
@pytest.mark.slow
def test_bad_uploads_get_one_line_and_serving_continues(client, server, tmp_path):
    from gradio_client.exceptions import AppError

    for path, message in bad_uploads(tmp_path).items():
        with pytest.raises(AppError) as caught:
            submit(client, server, path).result(TIMEOUT_S)
        assert str(caught.value).startswith(f"{path.name}: expected ")
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "/" not in str(caught.value)
    with pytest.raises(AppError, match="there is no image yet"):
        client.predict(None, str(server.model), 1, api_name="/upscale")
    with pytest.raises(AppError, match="has no PSNR-oriented model"):
        client.predict(*_arguments(tmp_path, server, 0.5), api_name="/upscale")
    assert submit(client, server, photograph(tmp_path / "good.png")).result(TIMEOUT_S)[1].endswith("good_sr.png")
    assert "Traceback" not in (server.folder / "log").read_text()


def _arguments(folder, server, alpha):
    from gradio_client import handle_file

    return handle_file(str(photograph(folder / "a.png"))), str(server.model), alpha


@needs_gradio
@needs_browser
@pytest.mark.slow
def test_browser_upload_compare_and_download(server, tmp_path):
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=TIMEOUT_S * 1000)
    path = photograph(tmp_path / "Foto (1).jpg", (200, 150), exif=exif())
    target = expected(server.model, path, tmp_path / "Foto (1)_sr.jpg")
    asked = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 375, "height": 800})
        page.set_default_timeout(TIMEOUT_S * 1000)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server.url)
        page.get_by_role("button", name="Upscale").wait_for()
        expect(page.get_by_label("Strength α").first).to_be_disabled()  # this model has no partner

        page.locator("input[type=file]").first.set_input_files(path)
        page.get_by_text("Foto (1).jpg").or_(page.get_by_text("Foto (1)")).first.wait_for()
        page.get_by_role("button", name="Upscale").click()
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
        assert shown == [[320, 300, 320, 300]] * 2  # at 1:1, even on a phone
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
        page.get_by_role("button", name="Upscale").click()
        expect(page.get_by_test_id("toast-body")).to_contain_text("paper.pdf: expected a PNG, JPEG")

        page.get_by_label("Clear").first.click()
        page.locator("button.gallery-item").last.click()
        page.get_by_text("coffee").first.wait_for()
        page.get_by_role("button", name="Upscale").click()
        page.get_by_role("button", name="Download coffee_sr.png").wait_for()
        browser.close()
    assert {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))} == {server.url[7:]}


@needs_gradio
@pytest.mark.slow
def test_server_contacts_no_other_host(server):
    urllib.request.urlopen(server.url).close()
    assert set((server.folder / "addresses").read_text().split()) <= {"127.0.0.1", "localhost"}


@needs_gradio
@pytest.mark.slow
def test_shutdown_leaves_no_files(server):
    (folder,) = (server.folder / "tmp").glob("esrgan-demo-*")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(TIMEOUT_S) == 130
    assert not folder.exists()
