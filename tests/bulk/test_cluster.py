import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("ray")
pytest.importorskip("pyarrow")

import ray

from esrgan import Upscaler, bulk, images, load_generator
from esrgan.bulk.cluster import Worker
from esrgan.cli import bulk as bulk_command
from esrgan.cli import inference as inference_command
from esrgan.errors import EsrganError, ImageError, LostDeviceError, Problem
from tests.helpers.image_folders import write_files
from tests.helpers.models import make_model, run

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path / "model.pth")


def read_files(folder):
    names = [path for path in folder.rglob("*") if path.is_file() and path.name != "esrgan-bulk.jsonl"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in names}


def manifest(folder):
    return [json.loads(line) for line in (folder / "esrgan-bulk.jsonl").read_text().splitlines()]


def test_pending_jobs_match_inference_minus_existing_outputs(write_images, tmp_path, monkeypatch):
    write_images(tmp_path / "in/deep", 2)
    write_images(tmp_path / "in", 1)
    monkeypatch.chdir(tmp_path)
    jobs, existing, _ = bulk.find_pending_jobs(["in"], [], "out")
    assert existing == 0
    assert [(job.source, job.target) for job in jobs] == [
        (f"{tmp_path}/in/0.png", f"{tmp_path}/out/0_sr.png"),
        (f"{tmp_path}/in/deep/0.png", f"{tmp_path}/out/deep/0_sr.png"),
        (f"{tmp_path}/in/deep/1.png", f"{tmp_path}/out/deep/1_sr.png"),
    ]
    write_images(tmp_path / "out/deep", 1)
    (tmp_path / "out/deep/0.png").rename(tmp_path / "out/deep/0_sr.png")
    for inputs in (["in"], ["in/**/*.png"], [f"file://{tmp_path}/in"]):
        remaining, existing, _ = bulk.find_pending_jobs(inputs, [], f"file://{tmp_path}/out")
        assert existing == 1
        assert remaining == [jobs[0], jobs[2]]
    with pytest.raises(ImageError, match=r"nothing\.png"):
        bulk.find_pending_jobs(["nothing.png"], [], "out")


def test_listed_files_mirror_folders_without_lookup(tmp_path):
    lines = [f"{tmp_path}/x/1.png", f"{tmp_path}/y/1.png", "s3://b/x/1.png", "s3://b/y/1.webp"]
    jobs, _, _ = bulk.find_pending_jobs([], lines[:2], f"{tmp_path}/out", ".webp")
    assert [job.target for job in jobs] == [f"{tmp_path}/out/x/1_sr.webp", f"{tmp_path}/out/y/1_sr.webp"]
    jobs, _, _ = bulk.find_pending_jobs([], lines[2:], "memory://out")
    assert [(job.source, job.target) for job in jobs] == [
        ("s3://b/x/1.png", "memory://out/x/1_sr.png"),
        ("s3://b/y/1.webp", "memory://out/y/1_sr.webp"),
    ]
    jobs, _, _ = bulk.find_pending_jobs([], lines, f"{tmp_path}/out")
    assert len({job.target for job in jobs}) == 4


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_of_windows_programs_are_read(tmp_path, encoding):
    (tmp_path / "list.txt").write_text("/x/é.png\r\n/y/1.png\r\n", encoding)
    assert bulk_command._read_list(tmp_path / "list.txt") == ["/x/é.png", "/y/1.png"]


def test_listed_files_on_several_drives_are_one_error(tmp_path, monkeypatch):
    def refuse(paths):
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr(os.path, "commonpath", refuse)
    with pytest.raises(ImageError, match="--list: expected files on one drive, got files on several drives; list the "):
        bulk.find_pending_jobs([], [f"{tmp_path}/1.png"], f"{tmp_path}/out")


def test_finds_images_and_existing_outputs_in_a_bucket(bucket):
    for name in ("in/a.png", "in/b/c.jpg", "in/b/c.png", "in/.hidden/d.png", "in/text.txt", "out/a_sr.png"):
        bucket.pipe_file(f"memory://{name}", b"x")
    bucket.pipe({"memory://in/b/d.PSD": b"x", "memory://in/._e.jxl": b"x", "memory://in/@eaDir/e.png": b"x"})
    jobs, existing, skipped = bulk.find_pending_jobs(["memory://in"], [], "memory://out/")
    assert existing == 1
    assert skipped == {"memory://in/b/d.PSD": "not a supported format: .psd"}
    assert [(job.source, job.target) for job in jobs] == [
        ("memory://in/b/c.jpg", "memory://out/b/c_sr.jpg"),
        ("memory://in/b/c.png", "memory://out/b/c_sr.png"),
    ]
    for uri, message in (("memory://nothing", "got none"), ("nonsense://b", "a reachable location, got ValueError")):
        with pytest.raises(ImageError, match=message):
            bulk.find_pending_jobs([uri], [], "memory://out")


@pytest.fixture
def run_worker(model, monkeypatch):
    monkeypatch.setattr(ray, "get", lambda ref: ref)
    monkeypatch.setattr(ray, "get_gpu_ids", list)
    attempts = SimpleNamespace(count=SimpleNamespace(remote=lambda job: 1))
    worker = Worker(load_generator(model), bulk.WorkerOptions("fp32"), attempts)

    def run_jobs(jobs):
        answer = worker({"job": [json.dumps(vars(job)) for job in jobs]})
        return [bulk.ManifestRecord(**json.loads(record)) for record in answer["record"]]

    return run_jobs


def test_a_worker_that_loses_its_gpu_ends(run_worker, bucket, write_images, tmp_path, monkeypatch, capsys):
    """Ray then starts another one, which can use the GPU again; what is finished is uploaded, and nothing is left."""
    upscale, calls, left = Upscaler.__call__, [], []

    def lose_gpu(self, image, progress):
        calls.append(image)
        if len(calls) > 1:
            raise LostDeviceError(Problem.failure("cuda", "the GPU failed", "start the program again"))
        return upscale(self, image, progress)

    def leave(code):
        left.append(([*temporary.iterdir()], [path.rpartition("/")[2] for path in bucket.find("memory://out")]))
        raise SystemExit(code)

    monkeypatch.setattr(Upscaler, "__call__", lose_gpu)
    monkeypatch.setattr(os, "_exit", leave)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    jobs, _, _ = bulk.find_pending_jobs([str(write_images(tmp_path / "in", 2))], [], "memory://out")
    with pytest.raises(SystemExit):
        run_worker(jobs)
    assert left == [([], ["0_sr.png"])]
    assert capsys.readouterr().err == "error: cuda: the GPU failed; Ray starts another process\n"


def test_objects_match_inference_output_and_are_written_once(run_worker, bucket, write_images, model, tmp_path):
    write_images(tmp_path / "in", 3)
    assert run(inference_command, "-m", model, "--precision", "fp32", tmp_path / "in", "-o", tmp_path / "expected") == 0
    bucket.put(str(tmp_path / "in"), "memory://in", recursive=True)
    bucket.pipe_file("memory://in/bad.png", b"not an image")
    jobs, _, _ = bulk.find_pending_jobs(["memory://in"], ["memory://in/gone.png"], "memory://out")
    records = run_worker(jobs)
    assert Counter(record.status for record in records) == {"upscaled": 3, "failed": 2}
    errors = {record.source: record.error for record in records if record.error}
    assert errors["memory://in/bad.png"].startswith("memory://in/bad.png: expected a PNG")
    assert errors["memory://in/gone.png"].startswith("memory://in/gone.png: expected")
    written = {path.removeprefix("/out/"): bucket.cat_file(path) for path in bucket.find("memory://out")}
    assert written == read_files(tmp_path / "expected")
    again = run_worker(jobs)
    assert Counter(record.status for record in again) == {"recovered": 3, "failed": 2}
    with bulk.open_manifest("memory://out") as add:
        add(records[0])
    with bulk.open_manifest("memory://out") as add:
        add(again[0])
    lines = bucket.cat_file("memory://out/esrgan-bulk.jsonl").splitlines()
    assert [json.loads(line)["status"] for line in lines] == [records[0].status, again[0].status]


def test_output_written_meanwhile_is_not_overwritten(run_worker, write_images, tmp_path, monkeypatch):
    write_images(tmp_path / "in", 1)
    jobs, _, _ = bulk.find_pending_jobs([str(tmp_path / "in")], [], str(tmp_path / "out"))
    write = images.write_image

    def late(path, *arguments, **options):
        path.write_bytes(b"the other's")
        return write(path, *arguments, **options)

    monkeypatch.setattr(images, "write_image", late)
    assert [record.status for record in run_worker(jobs)] == ["recovered"]
    assert read_files(tmp_path / "out") == {"0_sr.png": b"the other's"}


def test_full_disk_is_reported_and_leaves_no_file(run_worker, write_images, tmp_path, monkeypatch):
    write_images(tmp_path / "in", 1)
    jobs, _, _ = bulk.find_pending_jobs([str(tmp_path / "in")], [], str(tmp_path / "out"))
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    (record,) = run_worker(jobs)
    assert "0_sr.png: cannot be written: No space left on device; check the folder" in record.error
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("is_remote", [False, True])
def test_world_files_accompany_the_outputs(run_worker, bucket, write_images, tmp_path, is_remote):
    write_images(tmp_path / "in", 2)
    for name in ("0.pgw", "1.wld"):
        (tmp_path / "in" / name).write_text("4\n0\n0\n-4\n100\n200\n")
    source, out = str(tmp_path / "in"), str(tmp_path / "out")
    if is_remote:
        bucket.pipe({f"memory://in/{path.name}": path.read_bytes() for path in (tmp_path / "in").iterdir()})
        bucket.pipe_file("memory://out/1_sr.wld", b"the user's")
        source, out = "memory://in", "memory://out"
    first, second = run_worker(bulk.find_pending_jobs([source], [], out)[0])
    assert first.status == second.status == "upscaled"
    if is_remote:
        assert bucket.cat_file("memory://out/0_sr.pgw").split()[:4] == [b"2.0", b"0.0", b"0.0", b"-2.0"]
        assert bucket.cat_file("memory://out/1_sr.wld") == b"the user's"
        assert second.notes == ["memory://out/1_sr.wld exists already and is kept"]
    else:
        assert {path.name for path in tmp_path.glob("out/*.*")} == {"0_sr.png", "0_sr.pgw", "1_sr.png", "1_sr.wld"}


def test_output_folder_named_like_an_image_is_refused(write_images, tmp_path):
    write_images(tmp_path / "in", 1)
    for out in (tmp_path / "r.png", tmp_path / "in/0.png", "memory://b/r.tif"):
        with pytest.raises(ImageError, match="expected an output folder, got the name of an image file; choose"):
            bulk.find_pending_jobs([str(tmp_path / "in")], [], str(out))
    (tmp_path / "r.png").mkdir()
    assert bulk.find_pending_jobs([str(tmp_path / "in")], [], str(tmp_path / "r.png"))[0]


def test_unreachable_store_is_the_reported_error(run_worker, bucket, write_images, tmp_path, monkeypatch):
    write_images(tmp_path / "in", 2)
    jobs, _, _ = bulk.find_pending_jobs([str(tmp_path / "in")], [], "memory://out")
    put_file, isfile = type(bucket).put_file, type(bucket).isfile

    def unplugged(self, path, name, **options):
        monkeypatch.setattr(type(bucket), "isfile", lost)
        raise ConnectionError("unplugged")

    def lost(self, path):
        raise ConnectionError("lost")

    monkeypatch.setattr(type(bucket), "put_file", unplugged)
    first, second = run_worker(jobs)
    assert [first.status, second.status] == ["failed", "failed"]
    assert "unplugged" in first.error
    monkeypatch.setattr(type(bucket), "put_file", put_file)
    monkeypatch.setattr(type(bucket), "isfile", isfile)
    assert [record.status for record in run_worker(jobs)] == ["upscaled", "upscaled"]


def test_conflicting_uris_are_reported_in_full(bucket, write_images, tmp_path):
    write_images(tmp_path / "in", 1)
    for folder in ("x", "y"):
        bucket.put(str(tmp_path / "in/0.png"), f"memory://{folder}/0.png")
    jobs, _, _ = bulk.find_pending_jobs(["memory://x", "memory://y"], [], "memory://out")
    errors = [str(job.obstacle) for job in jobs]
    assert "would also be the output of memory://y/0.png" in errors[0]
    assert "would also be the output of memory://x/0.png" in errors[1]


@pytest.mark.slow
def test_wrong_usage_prints_one_line(write_images, model, tmp_path, capsys):
    write_images(tmp_path / "in", 1)
    (tmp_path / "empty.txt").write_text("\n")
    out = tmp_path / "out"
    for arguments, message in (
        ([], "no images to upscale"),
        (["--list", tmp_path / "empty.txt"], "no images to upscale"),
        (["--list", tmp_path / "no.txt"], "cannot be read"),
        (
            ["--list", tmp_path / "in/0.png"],
            "one path or URI per line, got a binary file; save it as UTF-8",
        ),
        ([""], "got an empty text; check the path"),
        ([tmp_path / "in", "--psnr-model-path", model], "--psnr-model-path: needs --alpha, the share of -m"),
        ([tmp_path / "in", "--address", "127.0.0.1:9"], "a Ray cluster"),
    ):
        assert run(bulk_command, "-o", out, "-m", model, *arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
        assert not out.exists()


def test_a_factor_that_the_models_cannot_reach_is_refused_before_workers_start(write_images, tmp_path, capsys):
    write_images(tmp_path / "in", 1)
    model, out = make_model(tmp_path / "x1.pth", scale=1), tmp_path / "out"
    assert run(bulk_command, tmp_path / "in", "-o", out, "-m", model, "-m", model, "--outscale", 2) == 2
    assert "error: a ×1 model cannot upscale by 2; add a model that upscales\n" in capsys.readouterr().err
    assert not ray.is_initialized()
    assert not out.exists()


def test_a_factor_within_what_a_model_puts_out_is_accepted(write_images, tmp_path, monkeypatch, capsys):
    """A size replaces the factor to which some ncnn files reduce their output."""

    def connect(address):
        raise EsrganError("workers would start now")

    write_images(tmp_path / "in", 1)
    reduced = replace(load_generator(make_model(tmp_path / "x2.pth")), outscale=1.0)
    monkeypatch.setattr(bulk_command.upscaling_options, "load_models", lambda _: [reduced])
    monkeypatch.setattr(bulk_command.cluster, "connect", connect)
    for factor, text in (("2", "workers would start now"), ("3", "a ×1 model cannot upscale by 3; add a model that")):
        options = ["-o", tmp_path / "out", "-m", tmp_path / "x2.pth", "--outscale", factor]
        assert run(bulk_command, tmp_path / "in", *options) == 2
        assert text in capsys.readouterr().err


@pytest.mark.slow
def test_two_runs_cannot_share_a_folder(tmp_path):
    hold = (
        "import sys\nfrom esrgan import bulk\n"
        "with bulk.open_manifest(sys.argv[1]):\n    print('open', flush=True)\n    sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", hold, tmp_path], **pipes) as other:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(EsrganError, match="another job"), bulk.open_manifest(str(tmp_path)):
            pass
        other.stdin.close()


@pytest.mark.slow
def test_sigterm_interrupts_a_command_that_uses_ray():
    wait = (
        "import os, signal, time\nfrom types import SimpleNamespace\nfrom esrgan.cli import cluster, process\n"
        "def work(args):\n    with cluster.connect(None):\n        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(10)\n"
        "command = SimpleNamespace(parse_args=lambda argv: argv, run=work)\n"
        "raise SystemExit(process.run(command, []))"
    )
    ended = subprocess.run([sys.executable, "-c", wait], stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    assert (ended.stderr, ended.returncode) == ("interrupted\n", 130)


def test_a_thread_may_connect():
    connect = (
        "import threading\nfrom esrgan.cli import cluster\n"
        "def work():\n    with cluster.connect(None):\n        print('connected')\n"
        "thread = threading.Thread(target=work)\nthread.start()\nthread.join()"
    )
    ended = subprocess.run([sys.executable, "-c", connect], stdout=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    assert ended.stdout == "connected\n"


@pytest.mark.slow
def test_no_image_is_lost_or_repeated_after_losing_a_node(write_images, model, tmp_path, monkeypatch, capsys):
    from ray.cluster_utils import Cluster

    source, out, log = write_images(tmp_path / "in", 40, (12, 10)), tmp_path / "out", tmp_path / "log"
    (source / "bad.png").write_bytes(b"not an image")
    log.touch()
    assert run(inference_command, "-m", model, source, "-o", tmp_path / "expected") == 1
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests/bulk_hook"), str(ROOT)]))
    monkeypatch.setenv("BULK_LOG", str(log))
    monkeypatch.setenv("BULK_OUT", str(out))
    monkeypatch.setenv("BULK_MIN_WORKERS", "2")
    monkeypatch.setenv("BULK_PAUSE_S", "0.2")
    monkeypatch.setenv("RAY_health_check_period_ms", "500")  # to detect a lost node quickly
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "120")  # nodes start slowly on a busy machine
    capsys.readouterr()

    def written():
        return [line.split() for line in log.read_text().splitlines()]

    memory = 80 << 20
    # With one core per node, the other worker must finish before the images of the lost node can be upscaled.
    cluster = Cluster(True, head_node_args={"num_cpus": 1, "object_store_memory": memory, "include_dashboard": False})
    try:
        node = cluster.add_node(num_cpus=1, object_store_memory=memory)
        command = ["esrgan", "bulk", source, "-m", model, "-o", out, "--address", cluster.address]
        with subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True) as job:
            while len({pid for pid, _ in written()}) < 2 or len(written()) < 10:
                assert job.poll() is None
                time.sleep(0.05)
            cluster.remove_node(node, allow_graceful=False)
            before = len(written())
            output = job.communicate()[0]

        assert job.returncode == 1
        assert before < 40
        assert output.splitlines()[-1] == "40 of 41 images upscaled, 1 failed"
        assert read_files(out) == read_files(tmp_path / "expected")
        assert not list(out.glob(".*"))
        assert set(Counter(target for _, target in written()).values()) == {1}
        lines = manifest(out)
        assert sorted(line["source"] for line in lines) == sorted(str(path) for path in source.iterdir())
        assert Counter(line["status"] == "failed" for line in lines) == {False: 40, True: 1}
        assert all(line["worker"] for line in lines if line["status"] == "upscaled")

        (source / "bad.png").unlink()
        count = len(written())
        arguments = ["-m", model, "-o", out, source, "--address", cluster.address]
        assert run(bulk_command, *arguments) == 0
        assert "0 of 40 images upscaled, 40 skipped (already exist)" in capsys.readouterr().out
        for i in (3, 14, 15):
            (out / f"{i}_sr.png").unlink()
        assert run(bulk_command, *arguments) == 0
        assert "3 of 40 images upscaled, 37 skipped (already exist)" in capsys.readouterr().out
        assert sorted(target for _, target in written()[count:]) == sorted(
            str(out / f"{i}_sr.png") for i in (3, 14, 15)
        )
        assert read_files(out) == read_files(tmp_path / "expected")
        assert len(manifest(out)) == 44
    finally:
        cluster.shutdown()


def test_names_of_outputs_have_the_chosen_ending(tmp_path):
    write_files(tmp_path / "in/a.png")
    (job,), _, _ = bulk.find_pending_jobs([str(tmp_path / "in")], [], str(tmp_path / "out"), None, "_x2")
    assert job.target == f"{tmp_path}/out/a_x2.png"
    (job,), existing, _ = bulk.find_pending_jobs([str(tmp_path / "in")], [], str(tmp_path / "in"), None, "")
    assert existing == 0
    assert "its output would overwrite it" in str(job.obstacle)
