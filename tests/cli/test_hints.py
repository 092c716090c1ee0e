"""What the commands say to words of other programs and to words that are misspelt."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from esrgan.cli import main
from esrgan.cli.foreign_options import FOREIGN_OPTIONS
from esrgan.data.archives import ARCHIVES
from esrgan.metrics import METRICS
from tests.helpers.image_folders import write_files


def errors_of(arguments, capsys):
    try:
        code = main(shlex.split(arguments))
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    assert code in (1, 2), (arguments, code)
    assert printed.out == ""
    return printed.err.splitlines()


@pytest.mark.parametrize(
    ("arguments", "hints"),
    [
        (
            "inference --tile 400 --tile_pad 10 a.png",
            ["--tile: not needed, because", "--tile_pad: not needed, because"],
        ),
        ("inference -t400 a.png", ["-t400: not needed, because"]),
        ("inference -i in -o out", ["-i: name the images without an option"]),
        ("inference --input=in", ["--input: name the images without an option"]),
        ("inference -n RealESRGAN_x4plus a.png", ["-n: here it is -m"]),
        ("upscale -s 4 --scale 4 a.png", ["-s: here it is --outscale", "--scale: here it is --outscale"]),
        ("inference --fp32 a.png", ["--fp32: here it is --precision fp32"]),
        ("inference -dn 0.5 a.png", ["-dn: here it is --alpha, with -m realesr-general-x4v3"]),
        ("inference --ext png -g 0 --half a", ["--ext: here it is --format", "-g: here it", "--half: here it is"]),
        ("inference --face_enhance a.png", ["--face_enhance: not available"]),
        ("bulk -g 0 a.png -o out", ["-g: not needed, because all GPUs"]),
        ("video -i a.mp4 -n x --fps 24", ["-i: name the video without", "-n: here it is -m", "--fps: not needed"]),
        ("compare -n x a.png -m esrgan-lite", ["-n: here it is -m"]),
        ("train -opt x.yml --auto_resume", ["-opt: name the configuration", "--auto_resume: here it is --resume auto"]),
        ("test -opt x.yml", ["-opt: name the models without an option, and the datasets with -d"]),
        ("export --input a.pth --output a.onnx", ["--input: name the model", "--output: name the file"]),
        ("inference --outsacle 2 a.png", ["--outsacle: unknown option; did you mean --outscale?"]),
        ("inference --self_ensemble a.png", ["--self_ensemble: unknown option; did you mean --self-ensemble?"]),
        ("inference --xyz a", ["--xyz: unknown option; `esrgan inference --help` explains the options"]),
        ("info -y a", ["-y: unknown option; `esrgan info --help` explains the options"]),
        ("infrence a.png", ["infrence: no such command; did you mean inference?"]),
        ("upscal a.png", ["upscal: no such command; did you mean upscale?"]),
        ("xyz", ["xyz: no such command; `esrgan --help` lists the commands"]),
        ("--versoin", ["--versoin: no such option; did you mean --version?"]),
        ("inference", ["the following arguments are required: images; `esrgan inference --help`"]),
    ],
)
def test_foreign_and_misspelt_words_get_a_hint(capsys, arguments, hints):
    lines = errors_of(arguments, capsys)
    assert len(lines) == len(hints)
    for line, hint in zip(lines, hints, strict=True):
        assert line.startswith(f"error: {hint}")


def test_known_options_are_never_explained_away():
    parsers = main.__globals__["make_parser"](with_arguments=True)
    (commands,) = (action for action in parsers._actions if action.choices and "train" in action.choices)
    for command, hints in FOREIGN_OPTIONS.items():
        known = commands.choices[command]._option_string_actions
        assert not hints.keys() & known.keys()
        for hint in hints.values():
            named = [word.strip(",;") for word in hint.split() if word.startswith("-") and "torchrun" not in hint]
            assert {*named} <= known.keys(), hint
    assert commands.choices["upscale"] is commands.choices["inference"]


def test_help_names_all_metrics_and_datasets():
    """The help is written out, because importing the tables would make it slow."""
    parsers = main.__globals__["make_parser"](with_arguments=True)
    (commands,) = (action for action in parsers._actions if action.choices and "train" in action.choices)
    text = commands.choices["test"].format_help()
    assert all(name.split("_")[0] in text for name in METRICS)
    assert ", ".join(ARCHIVES) in " ".join(commands.choices["prepare"].format_help().split())


def test_abbreviated_and_attached_options_still_work(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (line,) = errors_of("inference --outsc 2 -mesrgan-lite --prec fp32 -- -t.png", capsys)
    assert line.startswith("error: -t.png: expected an image file")


def test_a_file_in_place_of_a_command_names_the_command(tmp_path, capsys, monkeypatch):
    write_files(tmp_path / "my photo.png")
    monkeypatch.chdir(tmp_path)
    assert errors_of("'my photo.png'", capsys) == [
        "error: my photo.png: a command is missing; `esrgan inference 'my photo.png'` upscales"
    ]
    (tmp_path / "film.MP4").touch()
    assert errors_of("film.MP4", capsys) == ["error: film.MP4: a command is missing; `esrgan video film.MP4` upscales"]


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        ("inference photos/chelsae.png", "did you mean photos/chelsea.png?"),
        ("inference fotos/chelsea.png", "did you mean photos?"),
        ("inference photos/quite_different.png", "check the path"),
        ("inference -m esrgan-lit photos", "did you mean esrgan-lite?"),
        ("inference -m RealESRGAN_x4plus photos", "did you mean realesrgan-x4plus?"),
        ("inference -m RealESRGAN_x4plus.pth photos", "did you mean realesrgan-x4plus?"),
        ("inference -m modl.pth photos", "did you mean model.pth?"),
        ("info esrgan-fulll", "did you mean esrgan-full?"),
        ("models bsrgna", "did you mean bsrgan?"),
        ("models xyz", "`esrgan models` lists them"),
        ("prepare div2", "did you mean div2k?"),
        ("prepare foto", "did you mean photos?"),
        ("test -d set15 esrgan-lite", "did you mean set5?"),
        ("test -d phots esrgan-lite", "did you mean photos?"),
        ("train options.yml", "a YAML file; docs/how_to/migrate.md has a table of the keys"),
        ("train confg.json", "did you mean config.json?"),
        (
            "interpolate --images photos/chelsea.png photos/chelsa.png --alpha 1 o.png",
            "did you mean photos/chelsea.png?",
        ),
    ],
)
def test_the_nearest_name_is_suggested(tmp_path, capsys, monkeypatch, arguments, remedy):
    write_files(tmp_path / "photos/chelsea.png")
    (tmp_path / "model.pth").touch()
    (tmp_path / "options.yml").touch()
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    (line,) = errors_of(arguments, capsys)
    assert remedy in line


def test_hints_do_not_import_pytorch():
    code = (
        "import sys; from esrgan.cli import main\n"
        "try: main(['infrence']); main([]); main(['inference', '--tile', '4'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
