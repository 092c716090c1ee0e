import hashlib
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections import namedtuple
from http.client import HTTPResponse

import numpy as np
import pytest

from esrgan import download as download_module
from esrgan.download import Download, download
from esrgan.errors import EsrganError
from esrgan.locks import lock
from tests.helpers.console import captured_messages
from tests.helpers.dataset_server import run_server

CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(300_000)
SHA = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download_module, "RETRY_DELAY_S", 0.0)
    monkeypatch.setattr(download_module, "_CHUNK", 10_000)
    with run_server() as server:
        server.files["a.zip"] = CONTENT
        server.etags["a.zip"] = '"1"'
        yield server


@pytest.fixture
def target(server, tmp_path):
    return Download(server.url("a.zip"), tmp_path / "downloads" / "a.zip", SHA, len(CONTENT))


def bare_download(target, **changes):
    return Download(**{"url": target.url, "path": target.path, "digest": SHA} | changes)


def list_names(target):
    return sorted(path.name for path in target.path.parent.iterdir())


def download_error(target):
    with pytest.raises(EsrganError) as error:
        download(target)
    (problem,) = error.value.problems
    assert "\n" not in str(problem)
    return str(problem)


@pytest.mark.parametrize("digest", [SHA, MD5, SHA[:15]])
def test_file_is_downloaded_once(server, target, digest, monkeypatch):
    monkeypatch.setattr(HTTPResponse, "read1", HTTPResponse.read)  # whole chunks, whatever has arrived
    target = bare_download(target, digest=digest)
    with captured_messages(interval_s=0) as output:
        download(target)
    assert target.path.read_bytes() == CONTENT
    assert list_names(target) == ["a.zip"]
    assert output.getvalue().splitlines() == [
        f"a.zip: {10 * chunk}.0 kB of 300.0 kB, {chunk / 30:.0%} downloaded" for chunk in range(1, 31)
    ]
    download(target)
    assert len(server.requests) == 1


def test_existing_file_with_wrong_checksum_is_not_overwritten(server, target):
    target.path.parent.mkdir()
    target.path.write_bytes(b"mine")
    text = download_error(target)
    assert SHA in text
    assert "delete it" in text
    assert target.path.read_bytes() == b"mine"
    assert not server.requests


@pytest.mark.parametrize("announce", [True, False])
@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_interrupted_responses_are_resumed(server, target, announce, size):
    if not announce and size is None:
        pytest.skip("without any size, only the checksum reveals a truncated response")
    server.sends_length = announce
    server.faults = ["cut 100000", "cut 50000", "hang up", "status 503"]
    download(bare_download(target, size=size, digest=SHA))
    assert target.path.read_bytes() == CONTENT
    assert [asked for _, asked, _ in server.requests] == [None, "bytes=100000-", *["bytes=150000-"] * 3]


def test_what_came_before_a_stall_is_kept(server, target, monkeypatch):
    monkeypatch.setattr(download_module, "TIMEOUT_S", 0.2)
    server.faults = ["stall 4000", "stall 5000"]
    download(target)
    assert target.path.read_bytes() == CONTENT
    assert [asked for _, asked, _ in server.requests] == [None, "bytes=4000-", "bytes=9000-"]


@pytest.mark.parametrize("address", ["http://proxy..corp:3128", "http://proxy:port"])
def test_impossible_addresses_are_refused_at_once(server, target, monkeypatch, address):
    monkeypatch.setenv("http_proxy", address)
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setattr(urllib.request, "_opener", None)  # which keeps the settings of the first request
    error = download_error(target)
    assert ": the address of the proxy is not valid (" in error
    assert error.endswith("check https_proxy and http_proxy")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(urllib.request, "_opener", None)
    server.redirects["a.zip"] = "http://..bad/"
    error = download_error(target)
    assert ": the address to which it is redirected is not valid (" in error
    assert error.endswith(f"download it by other means to {target.path}")


def test_truncated_response_of_unknown_length_fails_checksum_and_retries(server, target):
    server.sends_length = False
    server.faults = ["cut 100000"]
    download(bare_download(target, digest=SHA))
    assert target.path.read_bytes() == CONTENT


def test_server_without_range_support_restarts_download(server, target):
    server.supports_ranges = False
    server.faults = ["cut 100000"]
    download(target)
    assert target.path.read_bytes() == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize("size", [None, len(OTHER)])
@pytest.mark.parametrize("other", [OTHER, b"short", OTHER + b"longer"])
def test_file_changed_between_attempts_is_downloaded_again(server, target, monkeypatch, other, size):
    monkeypatch.setattr(download_module, "MAX_ATTEMPTS", 1)
    server.faults = ["cut 100000", "hang up"]
    assert "100,000" in download_error(bare_download(target))
    server.files["a.zip"] = other
    monkeypatch.setattr(download_module, "MAX_ATTEMPTS", 2)
    digest = f"sha256:{hashlib.sha256(other).hexdigest()}"
    download(bare_download(target, digest=digest, size=size and len(other)))
    assert target.path.read_bytes() == other


@pytest.mark.parametrize("how", ["flip", "beginning of another"])
def test_wrong_checksum_discards_part_file_and_downloads_again(server, target, how):
    if how == "flip":
        server.faults = ["flip"]
    else:
        target.path.parent.mkdir()
        target.part_path.write_bytes(OTHER[:1000])
    download(target)
    assert target.path.read_bytes() == CONTENT
    assert len(server.requests) == 2
    assert server.requests[1][1] is None


def test_wrong_checksum_twice_raises(server, target):
    server.files["a.zip"] = OTHER
    text = download_error(target)
    assert SHA in text
    assert hashlib.sha256(OTHER).hexdigest() in text
    assert "twice" in text
    assert not target.path.exists()
    assert target.part_path.stat().st_size == 0


def test_unexpected_size_is_refused_at_once(server, target):
    server.files["a.zip"] = CONTENT + b"!"
    assert "expected 300,000 bytes, got 300,001" in download_error(target)
    server.sends_length = False
    assert "more bytes than announced (5 attempts without progress)" in download_error(target)


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_client_errors_are_not_retried(server, target, code):
    server.faults = [f"status {code}"]
    text = download_error(target)
    assert f"HTTP {code}" in text
    assert str(target.path) in text
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [429, 500, 503])
def test_retryable_status_is_retried_with_growing_delays(server, target, monkeypatch, code):
    waits = []
    monkeypatch.setattr(download_module.time, "sleep", waits.append)
    monkeypatch.setattr(download_module, "RETRY_DELAY_S", 2.0)
    server.faults = [f"status {code}"] * 3
    download(target)
    assert target.path.read_bytes() == CONTENT
    assert waits == [2, 4, 8]


@pytest.mark.parametrize(("asked", "waited"), [("7", 7), ("100000", 60), ("tomorrow", 2)])
def test_retry_after_sets_the_delay_up_to_a_limit(server, target, monkeypatch, asked, waited):
    waits = []
    monkeypatch.setattr(download_module.time, "sleep", waits.append)
    monkeypatch.setattr(download_module, "RETRY_DELAY_S", 2.0)
    server.faults, server.retry_after = ["status 503"], asked
    download(target)
    assert waits == [waited]


def test_persistent_failure_raises_and_next_call_resumes(server, target):
    server.faults = ["cut 100000", *["status 503"] * 5]
    text = download_error(target)
    assert "HTTP 503" in text
    assert "(5 attempts without progress)" in text
    assert "100,000" in text
    assert list_names(target) == ["a.zip.part"]
    download(target)
    assert server.requests[-1][1] == "bytes=100000-"
    assert list_names(target) == ["a.zip"]


def test_unreachable_server_raises_after_all_attempts(target, monkeypatch):
    monkeypatch.setattr(download_module, "MAX_ATTEMPTS", 2)
    assert "refused (2 attempts without progress)" in download_error(
        bare_download(target, url="http://127.0.0.1:9/a.zip")
    )


def test_redirect_is_followed(server, target):
    server.redirects["old.zip"] = target.url
    server.faults = ["", "cut 100000"]
    download(bare_download(target, url=server.url("old.zip"), digest=SHA))
    assert target.path.read_bytes() == CONTENT
    assert server.requests[-1][:2] == ("a.zip", "bytes=100000-")


def test_web_page_is_refused(server, target):
    server.content_type = "text/html; charset=utf-8"
    text = download_error(target)
    assert "got a web page" in text
    assert "browser" in text
    assert not target.path.exists()


def test_part_file_from_another_url_is_used_or_replaced(server, target):
    server.files["a.zip"], server.files["b.zip"] = OTHER, CONTENT
    server.faults = ["cut 100000", *["status 503"] * 5]
    download_error(target)
    download(bare_download(target, url=server.url("b.zip"), digest=SHA))
    assert target.path.read_bytes() == CONTENT


@pytest.mark.parametrize("size", [len(CONTENT), None])
@pytest.mark.parametrize("ranges", [True, False])
def test_complete_part_file_is_not_downloaded_again(server, target, ranges, size):
    server.supports_ranges = ranges
    target.path.parent.mkdir()
    target.part_path.write_bytes(CONTENT)
    download(bare_download(target, size=size))
    assert target.path.read_bytes() == CONTENT
    assert len(server.requests) == (0 if size else 1)  # if the size is unknown, the server is asked


def test_insufficient_disk_space_is_refused_before_the_first_byte(server, target, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, len(CONTENT) - 1))
    assert "expected 300.0 kB free, got 300.0 kB" in download_error(target)
    assert target.part_path.stat().st_size == 0
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, len(CONTENT)))
    download(target)


def test_full_disk_during_download_is_not_retried(server, target, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download_module, "_receive", full)
    text = download_error(target)
    assert "No space left on device" in text
    assert str(target.part_path) in text
    assert len(server.requests) == 1


def test_uncreatable_download_folder_raises(server, target, tmp_path):
    (tmp_path / "downloads").write_text("")
    text = download_error(target)
    assert "cannot be written" in text
    assert "set ESRGAN_CACHE to a folder that can be written" in text


def test_concurrent_download_of_the_same_file_is_refused(server, target):
    pytest.importorskip("fcntl")
    target.path.parent.mkdir()
    with lock(target.part_path, "busy"):
        assert "another process is downloading this file; wait for it" in download_error(target)
    download(target)
    assert target.path.read_bytes() == CONTENT


@pytest.mark.usefixtures("foreground_signals")  # background jobs ignore SIGINT
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.slow
def test_killed_download_resumes(server, target, number):
    server.faults = ["stall 150000"]
    code = (
        "import sys; from pathlib import Path; from esrgan import download as m\n"
        "m._CHUNK = 10000\n"
        "m.download(m.Download(sys.argv[1], Path(sys.argv[2]), sys.argv[4], int(sys.argv[3])))"
    )
    arguments = [target.url, str(target.path), str(target.size), SHA]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.DEVNULL)
    assert server.is_stalled.wait(30)
    while not target.part_path.exists() or target.part_path.stat().st_size < 140_000:
        assert process.poll() is None
    process.send_signal(number)
    process.wait()
    server.resume.set()
    downloaded = target.part_path.stat().st_size
    assert not target.path.exists()
    download(target)
    assert target.path.read_bytes() == CONTENT
    assert server.requests[1][1] == f"bytes={downloaded}-"
