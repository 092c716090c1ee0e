"""Public model files are recognised by their checksums, with their licences in words."""

import csv
import json

import pytest
import torch

from esrgan import load_generator
from esrgan.cli import main
from esrgan.files import file_digest
from esrgan.interpolation import blend
from esrgan.pretrained import describe_licence, identify, known
from tests.helpers.models import make_model


@pytest.fixture
def public(tmp_path, monkeypatch):
    """Return a model file that is in the table."""
    path = make_model(tmp_path / "any.pth")
    digest, size = file_digest(path).removeprefix("sha256:"), path.stat().st_size
    table = tmp_path / "table.csv"
    line = f"{digest},{size},4x Sharp,somebody,CC-BY-NC-SA-4.0,4x-Sharp"
    table.write_text(f"sha256,bytes,name,author,licence,page\n{line}\n")
    monkeypatch.setattr(known, "_TABLE", table)
    known._read_table.cache_clear()
    yield path
    known._read_table.cache_clear()


def test_table_has_the_facts_about_457_files():
    with known._TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({(row["page"], row["sha256"]) for row in rows}) == 457
    files = {row["sha256"]: (row["bytes"], row["author"], row["licence"]) for row in rows}
    assert all(files[row["sha256"]] == (row["bytes"], row["author"], row["licence"]) for row in rows)
    twice = "3d3ebdc1"  # the beginning of the checksum of a file that is on two pages
    (model,) = (each for digest, each in known._read_table()[66_958_607].items() if digest.startswith(twice))
    assert model.name == "FatalimiX or Fatality Comix"
    assert all(row["name"] and row["page"] and int(row["bytes"]) > 0 for row in rows)
    assert known._TABLE.stat().st_size < 100_000


def test_a_bundled_file_that_was_converted_is_known_too():
    file = load_generator("realesr-animevideov3")
    assert file.describe() == "SRVGGNetCompact ×4 64/16, BasicSR names; RealESR AnimeVideo v3 by xinntao, BSD-3-Clause"


def test_a_known_file_is_named_wherever_it_is_described(public, capsys):
    words = "4x Sharp by somebody, CC-BY-NC-SA-4.0: not for commercial use"
    file = load_generator(public)
    assert file.licence == "CC-BY-NC-SA-4.0"
    assert file.describe().endswith(f"; {words}")
    assert main(["info", str(public)]) == 0
    text = capsys.readouterr().out
    assert "  known as       4x Sharp by somebody\n  page           https://openmodeldb.info/models/4x-Sharp\n" in text
    assert "  licence        CC-BY-NC-SA-4.0: not for commercial use\n" in text
    assert main(["info", "--json", str(public)]) == 0
    info = json.loads(capsys.readouterr().out)
    assert [info[key] for key in ("name", "author", "licence")] == ["4x Sharp", "somebody", "CC-BY-NC-SA-4.0"]


def test_a_blend_keeps_a_common_licence_but_no_name(public):
    file = load_generator(public)
    mixed = blend(file, file, 0.5)
    assert mixed.licence == "CC-BY-NC-SA-4.0"
    assert mixed.known is None


def test_other_files_are_not_hashed(public, tmp_path, monkeypatch):
    monkeypatch.setattr(known, "file_digest", lambda _: pytest.fail("hashed"))
    (tmp_path / "other.pth").write_bytes(b"x")
    assert identify(tmp_path / "other.pth") is None
    assert identify(tmp_path / "missing.pth") is None


def test_a_file_of_the_same_size_is_another_one(public):
    data = bytearray(public.read_bytes())
    data[-1] ^= 1
    public.write_bytes(data)
    assert identify(public) is None


@pytest.mark.parametrize(
    ("licence", "words"),
    [
        (None, "licence unknown"),
        ("MIT", "MIT"),
        ("CC-BY-4.0", "CC-BY-4.0"),
        ("CC-BY-NC-4.0", "CC-BY-NC-4.0: not for commercial use"),
    ],
)
def test_licences_are_described(licence, words):
    assert describe_licence(licence) == words


def test_denoising_strength_blends_with_the_partner_that_keeps_noise():
    from esrgan.pretrained import MODELS, psnr_partner

    assert psnr_partner("realesr-general-x4v3") == "realesr-general-wdn-x4v3"
    assert MODELS["realesr-general-wdn-x4v3"].source.size == 4_885_111
    one, other = ({"w": torch.tensor(value)} for value in (0.0, 1.0))
    from esrgan.interpolation import interpolate

    assert float(interpolate(one, other, 0.3)["w"]) == pytest.approx(0.3)  # 0 keeps noise, 1 removes it
