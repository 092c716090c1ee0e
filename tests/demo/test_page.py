"""The page of ``esrgan demo``, tested through its API and in a browser."""

import importlib.util
import io
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
import zlib
from contextlib import contextmanager
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


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


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
    slow = make_model(folder / "slow.pth", blocks=100)
    (folder / "sitecustomize.py").write_text(AUDIT_HOOK)
    (folder / "tmp").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["-m", "esrgan", "demo", "-m", model, "-m", slow, "--port", port, "--device", "cpu"]
    command += ["--max-megapixels", "0.5"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "ADDRESS_LOG": str(folder / "addresses"),
        "TMPDIR": str(folder / "tmp"),
        "ESRGAN_CACHE": str(folder / "cache"),
    }
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
        environment.pop(name, None)
    log = (folder / "log").open("w+")
    command = [sys.executable, *map(str, command)]
    # In a working directory above the uploads, as in a container that starts in its root.
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
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


def submit(client, paths, model="small.pth", alpha=1, **settings):
    from gradio_client import handle_file

    settings = {"format": "same", "quality": "", "background": "", "size_kind": "scale", "size": ""} | settings
    files = [handle_file(str(path)) for path in paths]
    return client.submit(files, model, alpha, *settings.values(), api_name="/upscale")


@needs_gradio
@pytest.mark.parametrize("name", ["photo.jpg", "Foto (1) ü.png", "two.words.tif"])
@pytest.mark.slow
def test_result_equals_the_inference_command(client, server, tmp_path, name):
    path = photograph(tmp_path / name, exif=exif())
    slider, result, facts = submit(client, [path]).result(TIMEOUT_S)
    target = tmp_path / path.with_stem(f"{path.stem}_sr").name
    assert Path(result).name == target.name
    assert expected(server.model, path, target).read_bytes() == Path(result).read_bytes()
    assert b"a description" in images.read_image(target).exif
    assert f"{name}: 240 × 180 px in " in facts
    assert " s by small.pth" in facts
    high = np.asarray(Image.open(slider[1]))
    np.testing.assert_array_equal(high, images.read_image(target).frames[0])
    bicubic = Image.open(path).resize((240, 180), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(np.asarray(Image.open(slider[0])), bicubic)


@needs_gradio
@pytest.mark.slow
def test_format_quality_and_size_are_those_of_the_command(client, server, tmp_path):
    path = photograph(tmp_path / "a.png")
    _, result, _ = submit(client, [path], format="webp", quality="30", size_kind="width", size="100").result(TIMEOUT_S)
    command = ["inference", "-m", server.model, "--format", "webp", "--quality", 30, "--width", 100, "--device", "cpu"]
    assert main([*map(str, command), str(path)]) == 0
    assert Path(result).read_bytes() == (tmp_path / "a_sr.webp").read_bytes()


@needs_gradio
@pytest.mark.slow
def test_concurrent_users_get_their_own_results(client, server, tmp_path):
    paths = [photograph(tmp_path / f"{side}.png", (side, side)) for side in (300, 200)]
    jobs = [submit(client, [path]) for path in paths]
    for path, job in zip(paths, jobs, strict=True):
        result = job.result(TIMEOUT_S)[1]
        target = expected(server.model, path, tmp_path / f"{path.stem}_sr.png")
        np.testing.assert_array_equal(Image.open(result), Image.open(target))


@needs_gradio
@pytest.mark.slow
def test_bad_uploads_get_one_line_and_serving_continues(client, server, tmp_path):
    from gradio_client.exceptions import AppError

    good = photograph(tmp_path / "good.png")
    bad = bad_uploads(tmp_path)
    for path, message in bad.items():
        with pytest.raises(AppError) as caught:
            submit(client, [path]).result(TIMEOUT_S)
        assert str(caught.value).startswith(f"{path.name}: expected ")
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "/" not in str(caught.value)
    for files, settings, message in (
        ([], {}, "there is no image yet"),
        ([good], {"alpha": 0.5}, "has no PSNR-oriented model"),
        ([good], {"quality": "0"}, "quality: expected a whole number from 1 to 100, got 0"),
        ([good], {"quality": "1e400"}, "quality: expected a whole number from 1 to 100, got inf"),
        ([good], {"quality": "nan"}, "quality: expected a whole number from 1 to 100, got nan"),
        ([good], {"quality": "50.5"}, "quality: expected a whole number from 1 to 100, got 50.5"),
        (
            [good],
            {"background": "reddish"},
            "background: expected an opaque colour such as white or #ffffff, got reddish",
        ),
        ([good], {"quality": "high"}, "quality: expected a number, got high"),
        ([good], {"size_kind": "width", "size": "1.5"}, "width: expected a whole number"),
        ([good], {"size_kind": "width", "size": ""}, "size: expected a number, got none"),
        ([good], {"size_kind": "width", "size": "0"}, "width: expected a number above 0"),
    ):
        with pytest.raises(AppError, match=message):
            submit(client, files, **settings).result(TIMEOUT_S)
    _, result, facts = submit(client, [*bad, good]).result(TIMEOUT_S)
    assert "1 of 5 images upscaled" in facts
    assert all(path.name in facts for path in bad)
    with zipfile.ZipFile(result) as archive:
        assert archive.namelist() == ["good_sr.png"]
    assert "Traceback" not in (server.folder / "log").read_text()


@needs_gradio
@pytest.mark.slow
def test_names_that_begin_with_a_dot_do_not_stop_the_rest(client, tmp_path):
    names = ["good.png", "..png", ".hidden.png"]
    files = [photograph(tmp_path / name, (30 + i, 20), format="PNG") for i, name in enumerate(names)]
    (tmp_path / "._good.png").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    _, result, facts = submit(client, [*files, tmp_path / "._good.png"]).result(TIMEOUT_S)
    assert "3 of 4 images upscaled" in facts
    assert "._good.png: expected a PNG" in facts
    with zipfile.ZipFile(result) as archive:
        assert archive.namelist() == ["._sr.png", ".hidden_sr.png", "good_sr.png"]


@needs_gradio
@pytest.mark.slow
def test_a_file_that_is_uploaded_twice_is_upscaled_once(client, tmp_path):
    path = photograph(tmp_path / "a.png", (30, 20))
    _, result, facts = submit(client, [path, path]).result(TIMEOUT_S)
    assert Path(result).name == "a_sr.png"
    assert "a.png: 60 × 40 px in " in facts


@needs_gradio
@pytest.mark.slow
@pytest.mark.skipif(not has_ipv6(), reason="needs IPv6")
def test_the_address_may_be_one_of_ipv6(tmp_path):
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as free:
        port = free.getsockname()[1]
    command = ["-m", "esrgan", "demo", "--device", "cpu", "--host", "::1", "--port", str(port)]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, *command], env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline().startswith(f"http://[::1]:{port}: ")
            assert urllib.request.urlopen(f"http://[::1]:{port}").status == 200
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=TIMEOUT_S * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, server):
    """Open the page on a phone."""
    with open_page(browser, server) as page:
        yield page


@contextmanager
def open_page(browser, server, **options):
    context = browser.new_context(**{"viewport": {"width": 390, "height": 844}, **options})
    context.set_default_timeout(TIMEOUT_S * 1000)
    page = context.new_page()
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(server.url)
    page.get_by_role("button", name="Upscale").wait_for()
    page.wait_for_function("document.querySelector('#status [role=status]') !== null")
    yield page
    context.close()


def upload(page, *files):
    from playwright.sync_api import expect

    if page.get_by_label("Clear").count():
        page.get_by_label("Clear").first.click()
        expect(page.locator("#facts")).to_have_text("")
    page.locator("input[type=file]").first.set_input_files(list(files))
    page.locator("#facts p").first.wait_for()


def choose_model(page, name):
    page.get_by_label("Model", exact=True).click()
    page.get_by_role("option", name=name).click()


@needs_gradio
@needs_browser
@pytest.mark.slow
def test_browser_upload_compare_and_download(page, server, tmp_path):
    from playwright.sync_api import expect

    path = photograph(tmp_path / "Foto (1).jpg", (200, 150), exif=exif())
    target = expected(server.model, path, tmp_path / "Foto (1)_sr.jpg")
    expect(page.get_by_label("Strength α").first).to_be_disabled()  # this model has no partner
    expect(page.get_by_role("button", name="Upscale")).to_be_disabled()
    upload(page, path)
    facts = page.locator("#facts")
    expect(facts).to_contain_text("Foto (1).jpg: 200 × 150 → 400 × 300 px (0.03 → 0.12 megapixels)")
    expect(facts).to_contain_text(re.compile("about [0-9]+ s|less than a second"))
    page.get_by_role("button", name="Upscale").click()
    button = page.get_by_role("button", name=f"Download {target.name}")
    button.wait_for()
    with page.expect_download() as download:
        button.click()
    assert download.value.suggested_filename == target.name
    download.value.save_as(tmp_path / "downloaded.jpg")
    assert (tmp_path / "downloaded.jpg").read_bytes() == target.read_bytes()
    page.locator("#comparison img[alt='Result of the model']").wait_for()
    detail = page.locator("#result figure img")
    assert [detail.nth(i).bounding_box()["width"] for i in range(2)] == [256, 256]  # at 1:1, even on a phone
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert {urlsplit(url).netloc for url in page.asked if not url.startswith(("data:", "blob:"))} == {server.url[7:]}


@needs_gradio
@needs_browser
@pytest.mark.slow
def test_browser_removes_what_belongs_to_another_image(page, tmp_path):
    from playwright.sync_api import expect

    result, download = page.locator("#result"), page.get_by_role("button", name="Download a_sr.png")
    path = photograph(tmp_path / "a.png")
    upload(page, path)
    page.get_by_role("button", name="Try this part").click()
    expect(page.locator("figure")).to_have_count(2)
    page.get_by_role("button", name="Upscale").click()
    download.wait_for()
    page.get_by_label("Clear").first.click()  # a cleared upload
    for gone in (result, download, page.locator("figure"), page.locator("#facts p"), page.locator("#status p")):
        expect(gone).to_have_count(0)

    upload(page, path)
    page.get_by_role("button", name="Upscale").click()
    download.wait_for()
    page.get_by_role("button", name="Format and size").click()
    page.get_by_label("Background").fill("reddish")
    expect(page.get_by_role("button", name="Upscale")).to_be_disabled()
    expect(page.locator("#facts .error")).to_contain_text("reddish")
    page.get_by_label("Background").fill("")
    page.get_by_label("Background").blur()
    expect(page.get_by_role("button", name="Upscale")).to_be_enabled()
    choose_model(page, "slow.pth")
    page.get_by_role("button", name="Upscale").click()  # a new run
    expect(result).to_have_count(0)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#status")).to_have_text("Stopped.")
    expect(result).to_have_count(0)

    upload(page, {"name": "paper.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.7"})
    expect(page.locator("#facts .error")).to_contain_text("paper.pdf: expected a PNG, JPEG")
    expect(page.get_by_role("button", name="Upscale")).to_be_disabled()
    expect(page.get_by_role("button", name="Try this part")).to_have_count(0)
    page.get_by_role("button", name="Example: coffee").click()
    expect(page.locator("#facts")).to_contain_text("coffee.png: 200 × 133 → 400 × 266 px")


@needs_gradio
@needs_browser
@pytest.mark.slow
def test_browser_shows_the_latest_of_two_uploads(page, tmp_path):
    from playwright.sync_api import expect

    noise = np.random.default_rng(0).integers(0, 256, (2600, 3000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.jpg", quality=20)  # reading it takes longer than the example
    page.locator("input[type=file]").first.set_input_files(tmp_path / "large.jpg")
    page.get_by_label("Clear").first.wait_for()
    page.get_by_role("button", name="Example: coffee").click()
    expect(page.locator("#facts")).to_contain_text("coffee.png")
    expect(page.locator("#facts")).to_contain_text(re.compile("about|less than"))
    expect(page.locator("#facts")).not_to_contain_text("large.jpg")
    expect(page.locator("#preview")).to_contain_text("coffee.png: click to try a part")


@needs_gradio
@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("how", ["stop", "close"])
def test_browser_ends_work_that_nobody_waits_for(browser, server, client, tmp_path, how):
    from playwright.sync_api import expect

    begin = time.monotonic()
    with open_page(browser, server) as page:
        choose_model(page, "slow.pth")
        upload(page, photograph(tmp_path / "large.png", (800, 600)))
        page.get_by_role("button", name="Upscale").click()
        expect(page.locator("#status")).to_contain_text(re.compile(r"large.png - [1-9.]+%"))
        share = float(re.search(r"([0-9.]+)%", page.locator("#status").inner_text())[1]) / 100
        assert share < 0.5, "the model is too fast for this test"
        needed = (time.monotonic() - begin) / share
        if how == "stop":
            page.get_by_role("button", name="Stop").click()
            expect(page.locator("#status")).to_have_text("Stopped.")
            expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    begin = time.monotonic()
    submit(client, [photograph(tmp_path / "small.png")]).result(TIMEOUT_S)
    assert time.monotonic() - begin < needed / 2


@needs_gradio
@needs_browser
@pytest.mark.slow
def test_browser_tries_a_part_by_click_or_keyboard(page, tmp_path):
    from playwright.sync_api import expect

    upload(page, photograph(tmp_path / "a.png", (600, 400)))
    page.get_by_label("All models").check()
    preview = page.locator("#preview img")
    box = preview.bounding_box()
    preview.click(position={"x": box["width"] * 0.9, "y": box["height"] * 0.1})
    expect(page.locator("figure")).to_have_count(3)
    captions = page.locator("figcaption").all_inner_texts()
    assert [re.sub(", [0-9.]+ s", "", text) for text in captions] == ["Bicubic", "small.pth", "slow.pth"]
    across = page.get_by_label("range slider for Part, % from the left")
    assert (across.input_value(), page.get_by_label("range slider for Part, % from the top").input_value()) == (
        "100",
        "0",
    )
    across.focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("figure")).to_have_count(0)
    page.get_by_label("The chosen model").check()
    page.get_by_role("button", name="Try this part").press("Enter")
    expect(page.locator("figure img").last).to_have_attribute(
        "alt", "small.pth: part of a.png at 99 % from the left, 0 % from the top"
    )
    page.get_by_label("Several strengths").check()
    page.get_by_role("button", name="Try this part").press("Enter")
    expect(page.locator("#status .error")).to_contain_text("has no PSNR-oriented model")


@needs_gradio
@needs_browser
@pytest.mark.slow
def test_browser_begins_anew_when_a_button_is_pressed_again(page, tmp_path):
    from playwright.sync_api import expect

    upload(page, photograph(tmp_path / "a.png", (240, 200)))
    choose_model(page, "slow.pth")
    button = page.get_by_role("button", name="Try this part")
    button.click()
    expect(page.locator("#status")).to_contain_text("upscaling")
    button.click()
    page.locator(".figures figure").nth(1).wait_for()
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    button = page.get_by_role("button", name="Upscale")
    button.click()
    expect(page.locator("#status")).to_contain_text("upscaling")
    button.click()
    expect(page.locator("#status")).to_contain_text("Finished")
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()


@needs_gradio
@needs_browser
@pytest.mark.slow
def test_browser_shows_the_part_that_the_settings_give(page, tmp_path):
    from playwright.sync_api import expect

    page.get_by_role("button", name="Format and size").click()
    page.get_by_label("Size", exact=True).click()
    page.get_by_role("option", name="Width in pixels").click()
    width = page.get_by_role("textbox", name="Width in pixels")
    width.wait_for()
    upload(page, photograph(tmp_path / "a.png", (400, 300)))
    page.wait_for_timeout(1000)  # what is wrong with the size is shown before the upload, too
    expect(page.locator("#facts")).to_contain_text("size: expected a number")
    expect(page.get_by_role("button", name="Try this part")).to_be_hidden()
    width.fill("800")
    preview = page.locator("#preview img")
    preview.wait_for()
    before = preview.get_attribute("src")
    width.fill("1200")
    expect(preview).not_to_have_attribute("src", before)  # the frame is smaller now


@needs_gradio
@needs_browser
@pytest.mark.slow
def test_browser_says_what_to_do_with_too_large_images(page, tmp_path):
    from playwright.sync_api import expect

    upload(page, photograph(tmp_path / "large.png", (1000, 600)))
    expect(page.locator("#facts .error")).to_contain_text("--max-megapixels 0.6")
    expect(page.get_by_role("button", name="Upscale")).to_be_disabled()
    page.get_by_role("button", name="Try this part").click()
    expect(page.locator("figure")).to_have_count(2)


@needs_gradio
@needs_browser
@pytest.mark.slow
def test_browser_downloads_an_archive_of_several_outputs(page, tmp_path):
    from playwright.sync_api import expect

    (tmp_path / "bad.png").write_bytes(b"")
    paths = [photograph(tmp_path / "a.png"), tmp_path / "bad.png", photograph(tmp_path / "b.jpg")]
    upload(page, *paths)
    expect(page.locator("#facts")).to_contain_text("2 images: 0.022 → 0.086 megapixels in all")
    expect(page.locator("#facts .error")).to_contain_text("bad.png: expected")
    page.get_by_role("button", name="Upscale").click()
    button = page.get_by_role("button", name="Download upscaled.zip")
    button.wait_for()
    expect(page.locator("#result-facts")).to_contain_text("2 of 3 images upscaled")
    expect(page.locator("#result-facts .error")).to_contain_text("bad.png: expected")
    expect(page.locator("#comparison")).to_have_count(0)
    with page.expect_download() as download:
        button.click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.namelist() == ["a_sr.png", "b_sr.jpg"]


@needs_gradio
@needs_browser
@pytest.mark.slow
def test_browser_offers_models_with_size_and_licence(page):
    from playwright.sync_api import expect

    page.get_by_role("button", name="More models").click()
    page.get_by_label("Model to download").click()
    page.get_by_role("option", name="Drawings and anime – realesrgan-x4plus-anime").click()
    expect(page.get_by_role("button", name="Download realesrgan-x4plus-anime (17.9 MB, BSD-3-Clause)")).to_be_enabled()


# Returns what a screen reader would read no name for; icons of buttons have none of their own.
NAMELESS = """() => [...document.querySelectorAll("button, input:not([type=file]), textarea, img")].filter(element => {
    const label = element.getAttribute("aria-label") || element.alt || element.innerText
    const image = element.querySelector("img[alt]:not([alt=''])")
    return element.checkVisibility() && !label?.trim() && !element.labels?.length && !image
}).map(element => element.outerHTML.slice(0, 200))"""


@needs_gradio
@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"viewport": {"width": 1280, "height": 900}}, {"color_scheme": "dark"}])
def test_browser_page_fits_and_all_has_names(browser, server, tmp_path, options):
    with open_page(browser, server, **options) as page:

        def check():
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert page.evaluate(NAMELESS) == []

        check()
        for name in ("Format and size", "More models"):
            page.get_by_role("button", name=name).click()
        upload(page, photograph(tmp_path / f"{'a long name ' * 9}.png"))
        page.get_by_role("button", name="Try this part").click()
        page.locator("figure").nth(1).wait_for()
        page.get_by_role("button", name="Upscale").click()
        page.locator("#comparison img[alt='Result of the model']").wait_for()
        check()
        page.get_by_label("number input for Part, % from the left").focus()
        page.keyboard.press("Tab")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


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
