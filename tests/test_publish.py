"""Folders for the Hugging Face Hub and entries of OpenModelDB."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from esrgan import Upscaler, load_generator
from esrgan.cli import main
from esrgan.errors import EsrganError
from esrgan.interpolation import mix
from esrgan.publish import ModelFacts, make_openmodeldb_entry, write_hub_folder
from esrgan.weights import CompactArchitecture, load_file, save_file
from tests.helpers.hub_server import run_hub
from tests.helpers.models import make_model, pixels
from tests.helpers.weight_files import TINY, random_state

HPARAMS = {
    "batch_size": 8,
    "pretraining": {"cr_patch_size": [64, 64]},
    "training": {"cr_patch_size": [128, 128], "degradation": {"gt_usm": True}, "photo_degradation": None},
}
FACTS = ModelFacts(
    name="Film scans",
    authors=["ann", "bob-2"],
    licence="CC-BY-4.0",
    description=" For scans. \n",
    tags=["photo", "denoise"],
    date="2026-11-28",
    urls=["https://example.org/model.pth"],
)


@pytest.fixture
def file(tmp_path):
    return load_generator(make_model(tmp_path / "model.pth", stage="training", hparams=HPARAMS))


def test_from_hub_reads_the_same_weights_back(file, tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    write_hub_folder(file, tmp_path / "folder", "ann/film", FACTS)
    with run_hub() as server:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.base_url + template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        server.repos["ann/film"] = {path.name: path.read_bytes() for path in (tmp_path / "folder").iterdir()}
        upscaler = Upscaler.from_hub("ann/film", device="cpu")
        back = load_generator("hf:ann/film")
    expected = file.build().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in upscaler.network.state_dict().items())
    image = pixels(9, 8, 3)
    assert np.array_equal(upscaler(image), Upscaler.from_file(file.path, "cpu")(image))
    assert (back.stage, back.hparams, back.licence) == ("training", HPARAMS, "CC-BY-4.0")


def test_a_bundled_model_keeps_its_size_and_notice(tmp_path):
    assert main(["export", "realesr-animevideov3", str(tmp_path / "out"), "--hub", "ann/anime"]) == 0
    original, copy = (
        load_file(load_generator(each).path) for each in ("realesr-animevideov3", tmp_path / "out/model.safetensors")
    )
    assert all(torch.equal(value, copy["params"][name]) for name, value in original["params"].items())
    assert [value.dtype for value in original["params"].values()] == [
        copy["params"][name].dtype for name in original["params"]
    ]
    assert copy["notice"] == original["notice"]
    card = (tmp_path / "out/README.md").read_text("utf-8")
    assert "| licence | BSD-3-Clause. Copyright (c) 2021, Xintao Wang |" in card
    assert "For drawings and anime, small and fast." in card
    assert json.loads((tmp_path / "out/config.json").read_text())["architectures"] == ["SRVGGNetCompact"]


def test_the_hub_can_read_card_and_configuration(file, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    facts = replace(FACTS, tags=["photo"], dataset="Scans | of\nfilm")
    write_hub_folder(file, tmp_path / "folder", "ann/film", facts)
    card = hub.ModelCard.load(tmp_path / "folder/README.md")
    assert card.data.to_dict() == {
        "license": "cc-by-4.0",
        "library_name": "esrgan",
        "pipeline_tag": "image-to-image",
        "tags": ["super-resolution", "esrgan", "2x", "photo"],
    }
    assert card.text.startswith("\n# Film scans\n\nFor scans.\n")
    assert "| trained on | Scans \\| of film |" in card.text
    assert "| author | ann, bob-2 |" in card.text
    assert 'Upscaler.from_hub("ann/film")' in card.text
    assert "a guess" in card.text
    config = json.loads((tmp_path / "folder/config.json").read_text())
    assert (config["architectures"], config["scale_factor"], config["num_basic_blocks"]) == (["RRDBNet"], 2, 1)


def test_a_licence_that_the_hub_does_not_list_gets_a_name(file, tmp_path):
    write_hub_folder(file, tmp_path, "ann/film", ModelFacts(licence="LicenseRef-Ann"))
    assert 'license: "other"\nlicense_name: "LicenseRef-Ann"\n' in (tmp_path / "README.md").read_text("utf-8")


def test_any_text_in_a_file_leaves_the_card_readable(file, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    write_hub_folder(
        replace(file, licence='A\x7f\u2028\ud800"\n---\n'), tmp_path, "ann/film", ModelFacts(tags=["b: c"])
    )
    data = hub.ModelCard.load(tmp_path / "README.md").data.to_dict()
    assert data["license_name"] == 'A\ufffd \ufffd"\n---\n'
    assert data["tags"][-1] == "b: c"


def test_an_entry_has_only_numbers_for_numbers_of_the_training(file):
    hparams = {"batch_size": "many", "training": {"cr_patch_size": ["a", "a"]}}
    entry = make_openmodeldb_entry(replace(file, hparams=hparams), "2x-Film", FACTS)
    assert [key for key in entry if key.startswith("training")] == ["trainingOTF"]


@pytest.mark.parametrize("licence", [None, "MIT"])
def test_the_licence_is_neither_invented_nor_replaced(file, tmp_path, licence):
    recorded = replace(file, licence="Apache-2.0" if licence else None)
    got = "Apache-2.0, which .* records, got MIT; omit it" if licence else "such as Apache-2.0 .*, got none"
    with pytest.raises(EsrganError, match=f"^licence: expected .*{got}"):
        write_hub_folder(recorded, tmp_path / "folder", "ann/film", ModelFacts(licence=licence))
    assert not (tmp_path / "folder").exists()


def test_an_entry_has_the_fields_of_openmodeldb(file):
    facts = replace(FACTS, dataset="Scans", pretrained="4x-BSRGAN", images=[("https://a/l.png", "https://a/s.png")])
    assert make_openmodeldb_entry(file, "2x-Film-Scans", facts) == {
        "name": "Film scans",
        "author": ["ann", "bob-2"],
        "license": "CC-BY-4.0",
        "tags": ["denoise", "photo"],
        "description": "For scans.",
        "date": "2026-11-28",
        "architecture": "esrgan",
        "size": ["8nf", "1nb"],
        "scale": 2,
        "inputChannels": 3,
        "outputChannels": 3,
        "resources": [
            {
                "platform": "pytorch",
                "type": "pth",
                "size": file.path.stat().st_size,
                "sha256": hashlib.sha256(file.path.read_bytes()).hexdigest(),
                "urls": ["https://example.org/model.pth"],
            }
        ],
        "images": [{"type": "paired", "LR": "https://a/l.png", "SR": "https://a/s.png"}],
        "dataset": "Scans",
        "pretrainedModelG": "4x-BSRGAN",
        "trainingBatchSize": 8,
        "trainingHRSize": 128,
        "trainingOTF": True,
    }


def test_a_blend_claims_no_training(file, tmp_path):
    for result in (replace(file, alpha=0.5), mix([file, file], [0.5, 0.5])):
        entry = make_openmodeldb_entry(result, "2x-Film", FACTS)
        assert not [key for key in entry if key.startswith("training")]
    write_hub_folder(result, tmp_path / "folder", "ann/film", FACTS)
    assert "| training | interpolated |" in (tmp_path / "folder/README.md").read_text("utf-8")


def test_an_entry_names_other_networks(tmp_path):
    compact = CompactArchitecture(2, 3, 8, 3)
    save_file(tmp_path / "c.safetensors", {"params": compact.build().state_dict()})
    entry = make_openmodeldb_entry(load_generator(tmp_path / "c.safetensors"), "2x-C", FACTS)
    assert (entry["architecture"], entry["size"]) == ("compact", ["8nf", "3nc"])
    assert entry["resources"][0]["type"] == "safetensors"
    save_file(tmp_path / "grey.pth", {"params": random_state(replace(TINY, img_channels=1))})
    entry = make_openmodeldb_entry(load_generator(tmp_path / "grey.pth"), "4x-Grey", replace(FACTS, authors=["ann"]))
    assert (entry["inputChannels"], entry["outputChannels"], entry["author"]) == (1, 1, "ann")


def test_all_missing_and_wrong_facts_are_named(file):
    with pytest.raises(EsrganError) as caught:
        make_openmodeldb_entry(file, "4x-Film", ModelFacts(tags=["no tag"], date="28.11.2026", pretrained="BSRGAN"))
    places = [problem.place for problem in caught.value.problems]
    assert places == ["id", "licence", "name", "author", "description", "url", "date", "tag", "pretrained"]


def test_the_command_writes_an_entry(file, tmp_path, capsys):
    arguments = ["--name", "Film", "--author", "ann", "--license", "MIT", "--tag", "photo", "--description", "Scans."]
    out = tmp_path / "2x-Film.json"
    command = ["export", str(file.path), str(out), "--openmodeldb", *arguments, "--url", "https://example.org/m.pth"]
    assert main(command) == 0
    entry = json.loads(out.read_text("utf-8"))
    assert (entry["license"], entry["images"], len(entry["date"])) == ("MIT", [], 10)
    assert "add it to OpenModelDB as data/models/2x-Film.json" in capsys.readouterr().out
    assert main(command) == 2
    assert "2x-Film.json: already exists; use --overwrite to replace it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.pth", "--tag", "photo"], "--tag: only for --hub and --openmodeldb"),
        (["x.pth", "--image", "https://a", "https://b"], "--image: only for --hub and --openmodeldb"),
        (["x", "--hub", "", "--licence", "MIT"], "repository: expected owner/name, got "),
        (["x", "--hub", "../film", "--licence", "MIT"], "repository: expected owner/name, got ../film"),
        (["x", "--hub", "ann/fílm", "--licence", "MIT"], "repository: expected owner/name, got ann/fílm"),
        (["x", "--hub", "ann/film", "--half"], "--half: not for --hub; omit it"),
        (["x", "--hub", "ann/film", "--url", "https://example.org"], "--url: not for --hub; omit it"),
        (["x", "--hub", "film", "--licence", "MIT"], "repository: expected owner/name, got film"),
        (["2x-Film", "--openmodeldb"], "2x-Film: expected a name that ends in .json, got no suffix"),
    ],
)
def test_the_command_explains_wrong_options(file, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(file.path), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]


def test_a_folder_is_not_overwritten_unasked(file, tmp_path, capsys):
    command = ["export", str(file.path), str(tmp_path / "out"), "--hub", "ann/film", "--licence", "MIT"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out/README.md").write_text("mine")
    assert main(command) == 2
    assert (tmp_path / "out/README.md").read_text() == "mine"
    assert main([*command, "--overwrite"]) == 0
    assert "hf upload ann/film" in capsys.readouterr().out


def test_what_else_an_upload_would_take_is_named(file, tmp_path, capsys):
    folder = tmp_path / "my model"
    folder.mkdir()
    (folder / "private.txt").touch()
    assert main(["export", str(file.path), str(folder), "--hub", "ann/film", "--licence", "MIT"]) == 0
    expected = f"`hf upload ann/film '{folder}'`, with everything else in this folder, such as private.txt\n"
    assert capsys.readouterr().out.endswith(expected)


@pytest.mark.parametrize("key", ["authors", "tags", "urls", "images"])
def test_a_text_is_not_taken_for_a_list_of_letters(key):
    with pytest.raises(EsrganError, match=f"^{key}: expected a list, got a text$"):
        ModelFacts(**{key: "photo"})


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"date": "2026-02-31"}, "date"),
        ({"date": "20260228"}, "date"),
        ({"urls": ["javascript:alert(1)"]}, "url"),
        ({"images": [("https://example.org/a.png", "b.png")]}, "image"),
    ],
)
def test_impossible_days_and_addresses_are_refused(file, change, place):
    with pytest.raises(EsrganError) as error:
        make_openmodeldb_entry(file, "2x-Film", replace(FACTS, authors=["ann"], **change))
    assert [problem.place for problem in error.value.problems] == [place]
