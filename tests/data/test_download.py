import hashlib
import shutil
import signal
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest

from esrgan.data import answers
from esrgan.data import download as module
from esrgan.data.download import Wanted, download
from esrgan.errors import DatasetError
from tests.helpers.dataset_server import serving

CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(300_000)
SHA = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    monkeypatch.setattr(answers, "_CHUNK", 10_000)
    with serving() as server:
        server.files["a.zip"] = CONTENT
        server.etags["a.zip"] = '"1"'
        yield server


@pytest.fixture
def wanted(server, tmp_path):
    return Wanted(server.url("a.zip"), tmp_path / "downloads" / "a.zip", len(CONTENT), SHA)


def loose(wanted, **changes):
    return Wanted(**{"url": wanted.url, "path": wanted.path} | changes)


def listing(wanted):
    return sorted(path.name for path in wanted.path.parent.iterdir())


def message(wanted):
    with pytest.raises(DatasetError) as error:
        download(wanted)
    (problem,) = error.value.problems
    assert "\n" not in str(problem)
    return str(problem)


@pytest.mark.parametrize("digest", [SHA, MD5, None])
def test_file_is_downloaded_once(server, wanted, digest):
    wanted = loose(wanted, digest=digest)
    seen = []
    assert download(wanted, lambda *progress: seen.append(progress)) == (digest or SHA)
    assert wanted.path.read_bytes() == CONTENT
    assert listing(wanted) == ["a.zip"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert len(seen) == 30
    assert download(wanted) == (digest or SHA)
    assert len(server.seen) == 1


def test_wrong_file_of_that_name_is_not_overwritten(server, wanted):
    wanted.path.parent.mkdir()
    wanted.path.write_bytes(b"mine")
    text = message(wanted)
    assert SHA in text
    assert "delete it" in text
    assert wanted.path.read_bytes() == b"mine"
    assert not server.seen


@pytest.mark.parametrize("announce", [True, False])
@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_cut_answers_are_continued(server, wanted, announce, size):
    if not announce and size is None:
        pytest.skip("then a cut answer shows in the checksum alone")
    server.announce = announce
    server.faults = ["cut 100000", "cut 50000", "hang up", "status 503"]
    download(loose(wanted, size=size, digest=SHA))
    assert wanted.path.read_bytes() == CONTENT
    assert [asked for _, asked, _ in server.seen] == [None, "bytes=100000-", *["bytes=150000-"] * 3]
    assert {condition for _, _, condition in server.seen[1:]} == {'"1"'}


def test_cut_answer_of_unknown_length_is_found_by_the_checksum(server, wanted):
    server.announce = False
    server.faults = ["cut 100000"]
    download(loose(wanted, digest=SHA))
    assert wanted.path.read_bytes() == CONTENT


def test_server_without_ranges_begins_anew(server, wanted):
    server.ranges = False
    server.faults = ["cut 100000"]
    download(wanted)
    assert wanted.path.read_bytes() == CONTENT
    assert len(server.seen) == 2


@pytest.mark.parametrize("digest", [SHA, None])
@pytest.mark.parametrize("validator", ["etag", "weak etag", "time", "none"])
def test_beginning_is_kept_only_where_something_vouches_for_it(server, wanted, validator, digest):
    server.etags = {"etag": {"a.zip": '"1"'}, "weak etag": {"a.zip": 'W/"1"'}}.get(validator, {})
    server.modified = "Sat, 01 Jan 2022 00:00:00 GMT" if validator == "time" else None
    server.faults = ["cut 100000"]
    download(loose(wanted, digest=digest))
    assert wanted.path.read_bytes() == CONTENT
    continued = digest is not None or validator in ("etag", "time")
    assert server.seen[1][1] == ("bytes=100000-" if continued else None)


@pytest.mark.parametrize("validator", ["etag", "time"])
@pytest.mark.parametrize("honest", [True, False])
def test_file_that_changes_between_attempts_is_not_mixed(server, wanted, monkeypatch, validator, honest):
    """A server that ignores If-Range sends the end of the new file; its validator gives it away."""
    if validator == "time":
        server.etags, server.modified = {}, "Sat, 01 Jan 2022 00:00:00 GMT"
    server.faults = ["cut 100000", "hang up"]
    wanted = loose(wanted)
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    assert "100,000" in message(wanted)
    server.files["a.zip"] = OTHER
    if validator == "time":
        server.modified = "Sun, 02 Jan 2022 00:00:00 GMT"
    else:
        server.etags["a.zip"] = '"2"'
    if not honest:
        original = server.answer

        def answer(request):
            del request.headers["If-Range"]
            original(request)

        server.answer = answer
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    download(wanted)
    assert wanted.path.read_bytes() == OTHER


def test_file_that_shrinks_between_attempts_begins_anew(server, wanted, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    server.faults = ["cut 100000", "hang up"]
    wanted = loose(wanted)
    message(wanted)
    server.files["a.zip"] = b"short"
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    download(wanted)
    assert wanted.path.read_bytes() == b"short"


def test_file_of_another_size_under_the_same_validator_begins_anew(server, wanted, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    server.faults = ["cut 100000", "hang up"]
    wanted = loose(wanted)
    message(wanted)
    server.files["a.zip"] = OTHER + b"longer"
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    download(wanted)
    assert wanted.path.read_bytes() == OTHER + b"longer"


@pytest.mark.parametrize("how", ["flip", "beginning of another"])
def test_wrong_bytes_are_thrown_away_and_fetched_again(server, wanted, how):
    if how == "flip":
        server.faults = ["flip"]
    else:
        wanted.path.parent.mkdir()
        wanted.part.write_bytes(OTHER[:1000])
        wanted.notes.write_text(f'{{"url": "{wanted.url}", "validator": "\\"1\\"", "total": {len(CONTENT)}}}')
    download(wanted)
    assert wanted.path.read_bytes() == CONTENT
    assert len(server.seen) == 2
    assert server.seen[1][1] is None


def test_bytes_wrong_twice_are_refused(server, wanted):
    server.files["a.zip"] = OTHER
    text = message(wanted)
    assert SHA in text
    assert hashlib.sha256(OTHER).hexdigest() in text
    assert "twice" in text
    assert not wanted.path.exists()
    assert wanted.part.stat().st_size == 0


def test_other_size_than_published_is_refused_at_once(server, wanted):
    server.files["a.zip"] = CONTENT + b"!"
    assert "expected 300,000 bytes, got 300,001" in message(wanted)
    server.announce = False
    assert "more bytes than announced, 5 times" in message(wanted)


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_refusals_are_final(server, wanted, code):
    server.faults = [f"status {code}"]
    text = message(wanted)
    assert f"HTTP {code}" in text
    assert str(wanted.path) in text
    assert len(server.seen) == 1


@pytest.mark.parametrize("code", [429, 500, 503])
def test_passing_trouble_is_waited_for(server, wanted, monkeypatch, code):
    waits = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    monkeypatch.setattr(module, "PAUSE_S", 2.0)
    server.faults = [f"status {code}"] * 3
    download(wanted)
    assert wanted.path.read_bytes() == CONTENT
    assert waits == [2, 4, 8]


@pytest.mark.parametrize(("asked", "waited"), [("7", 7), ("100000", 60), ("tomorrow", 2)])
def test_server_says_how_long_to_wait(server, wanted, monkeypatch, asked, waited):
    waits = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    monkeypatch.setattr(module, "PAUSE_S", 2.0)
    server.faults, server.retry_after = ["status 503"], asked
    download(wanted)
    assert waits == [waited]


def test_lasting_trouble_ends_and_the_next_call_goes_on(server, wanted):
    server.faults = ["cut 100000", *["status 503"] * 5]
    text = message(wanted)
    assert "HTTP 503" in text
    assert "5 times" in text
    assert "100,000" in text
    assert listing(wanted) == ["a.zip.part", "a.zip.part.json"]
    download(wanted)
    assert server.seen[-1][1] == "bytes=100000-"
    assert listing(wanted) == ["a.zip"]


def test_nobody_there(wanted, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    assert "refused, 2 times" in message(loose(wanted, url="http://127.0.0.1:9/a.zip"))


def test_redirect_is_followed(server, wanted):
    server.redirects["old.zip"] = wanted.url
    server.faults = ["", "cut 100000"]
    download(loose(wanted, url=server.url("old.zip"), digest=SHA))
    assert wanted.path.read_bytes() == CONTENT
    assert server.seen[-1][:2] == ("a.zip", "bytes=100000-")


def test_web_page_is_no_archive(server, wanted):
    server.kind = "text/html; charset=utf-8"
    text = message(wanted)
    assert "got a web page" in text
    assert "browser" in text
    assert not wanted.path.exists()


def test_beginning_from_another_address_is_not_used(server, wanted):
    server.files["b.zip"] = CONTENT
    server.faults = ["cut 100000", *["status 503"] * 5]
    message(wanted)
    download(loose(wanted, url=server.url("b.zip"), digest=SHA))
    assert server.seen[-1] == ("b.zip", None, None)


@pytest.mark.parametrize("notes", ["", "[]", "{", None])
def test_damaged_notes_are_no_obstacle(server, wanted, notes):
    wanted.path.parent.mkdir()
    wanted.part.write_bytes(CONTENT[:1000])
    if notes is not None:
        wanted.notes.write_text(notes)
    download(wanted)
    assert wanted.path.read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_whole_file_that_was_not_renamed_is_not_downloaded_again(server, wanted, ranges):
    server.ranges = ranges
    download(wanted)
    wanted.path.rename(wanted.part)
    wanted.notes.write_text(f'{{"url": "{wanted.url}", "validator": "\\"1\\"", "total": {len(CONTENT)}}}')
    download(wanted)
    assert len(server.seen) == 1
    wanted.path.rename(wanted.part)
    wanted.notes.write_text(f'{{"url": "{wanted.url}", "validator": "\\"1\\"", "total": {len(CONTENT)}}}')
    download(loose(wanted))  # without a checksum the server is asked
    assert wanted.path.read_bytes() == CONTENT
    assert len(server.seen) == 2


def test_disk_without_room_is_refused_before_a_byte(server, wanted, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, len(CONTENT) - 1))
    assert "GB free" in message(wanted)
    assert wanted.part.stat().st_size == 0
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, len(CONTENT)))
    download(wanted)


def test_disk_that_fills_up_is_no_trouble_of_the_network(server, wanted, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_receive", full)
    text = message(wanted)
    assert "No space left on device" in text
    assert str(wanted.part) in text
    assert len(server.seen) == 1


def test_folder_that_cannot_be_made(server, wanted, tmp_path):
    (tmp_path / "downloads").write_text("")
    assert "cannot be written" in message(wanted)


def test_second_download_of_the_same_file_is_refused(server, wanted):
    pytest.importorskip("fcntl")
    texts = []
    server.faults = ["cut 20000"]
    download(wanted, lambda *_: texts.append(message(wanted)) if not texts else None)
    assert "a second download" in texts[0]
    assert wanted.path.read_bytes() == CONTENT


@pytest.mark.usefixtures("own_signals")  # a job in the background would ignore SIGINT
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_download_goes_on(server, wanted, number):
    server.faults = ["stuck 150000"]
    code = (
        "import sys; from pathlib import Path; from esrgan.data import answers, download as m; answers._CHUNK = 10000\n"
        "m.download(m.Wanted(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))"
    )
    arguments = [wanted.url, str(wanted.path), str(wanted.size), SHA]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.DEVNULL)
    assert server.stuck.wait(30)
    while not wanted.part.exists() or wanted.part.stat().st_size < 140_000:
        assert process.poll() is None
    process.send_signal(number)
    process.wait()
    server.go.set()
    there = wanted.part.stat().st_size
    assert not wanted.path.exists()
    download(wanted)
    assert wanted.path.read_bytes() == CONTENT
    assert server.seen[1][1] == f"bytes={there}-"
