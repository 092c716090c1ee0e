"""Tests of the HTML report: structure, tables, crops, error maps and escaping."""

from __future__ import annotations

import base64
import html
import io
import math
import re
import shutil
import subprocess
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from esrgan.errors import EsrganError
from esrgan.evaluation import DatasetEvaluation, Evaluation, ImageResult, render_html, render_markdown
from esrgan.evaluation.crops import ImageCrop, ImageVersions
from esrgan.metrics import Metric
from esrgan.resize import bicubic
from tests.helpers.evaluation import make_versions

PSNR = Metric("psnr", "PSNR Y", "dB", True, 2, True, "")
LPIPS = Metric("lpips", "LPIPS", "", False, 4, True, "")
METRICS = (PSNR, LPIPS)
VOID = {"meta", "img", "input", "link", "br", "hr"}
HOSTILE = "<script>alert(1)</script> \"quoted\" 'x' & größe 日本 \udcff\u202e\n.png"
HARMLESS = (
    "<script>alert(1)</script> \"quoted\" 'x' & größe 日本 \N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER} .png"
)


class Page(HTMLParser):
    """A parsed page: its tags with their attributes, and its text by the enclosing tag."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag, **attributes):
        return [a for t, a in self.tags if t == tag and attributes.items() <= a.items()]

    def text(self, tag):
        return [data for around, data in self.texts if around == tag]

    def decoded_images(self):
        """Return the images by their alternative texts."""
        return {
            a["alt"]: Image.open(io.BytesIO(base64.b64decode(a["src"].partition("base64,")[2])))
            for a in self.all("img")
            if "src" in a
        }


def table_cells(text, table):
    """Return the words of each cell of the table with a caption, without tags."""
    body = next(each for each in re.findall("<table.*?</table>", text, re.DOTALL) if f"<caption>{table}" in each)
    cells = (re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.DOTALL) for row in re.findall("<tr>.*?</tr>", body))
    return [[html.unescape(re.sub(r"<[^>]*>", " ", cell)).split() for cell in row] for row in cells]


def section(
    gains, versions=None, dataset="photos", scores=None, methods=("bicubic", "first", "second"), metrics=METRICS
):
    """Return a dataset whose images gain the given PSNR with "second", and twice as much with "first"."""
    scores = scores or {
        name: {
            "bicubic": {"psnr": 20.0, "lpips": 0.5},
            "first": {"psnr": None if gain is None else 20 + 2 * gain, "lpips": 0.25},
            "second": {"psnr": None if gain is None else 20 + gain, "lpips": 0.25},
        }
        for name, gain in gains.items()
    }
    results = {
        image: {method: ImageResult(by_method.get(method, {}), 1.0, 1) for method in methods}
        for image, by_method in scores.items()
    }
    crop = ImageCrop.of(versions or make_versions(models=methods[1:]))
    crops = dict.fromkeys(results, crop)
    return DatasetEvaluation(dataset, methods, metrics, len(results), results=results, crops=crops)


def report(*sections, num_shown=1):
    return render_html(Evaluation({"Report": "1 May"}, "conventions", list(sections)), num_shown)


def test_report_is_one_file_that_needs_no_network():
    page = Page(report(section({"a": 1.0, "b": -1.0})))
    assert page.all("html", lang="en")
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert "src" not in page.all("script")[0]
    assert not page.all("link")
    addresses = [a[key] for _, a in page.tags for key in ("src", "href", "action", "srcset") if key in a]
    assert addresses
    assert all(address.startswith(("data:image/", "#")) for address in addresses)
    assert not re.search(r"https?:|url\(|@import|//\w", "".join(page.text("script") + page.text("style")))
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert "default-src 'none'" in policy


def test_report_has_a_section_per_dataset_and_valid_links():
    text = report(section({"a": 1.0, "b": -1.0, "c": 0.0}), section({"a": 2.0}, dataset="others"))
    page = Page(text)
    assert page.text("h1") == ["Evaluation of Report"]
    assert {"photos", "others"} <= set(page.text("h2"))
    assert page.text("h4") == ["a", "b", "a"]
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in page.all("a")} <= set(ids)
    images = page.all("img")
    described = [a for a in images if a["alt"]]
    assert len(described) == len(images) - 3 == 3 * (1 + 5 + 3)  # the flip view and the slider get theirs by script
    assert "1 May" in page.text("dd")
    assert "first and bicubic: 3 images are too few to tell; at least 6 are needed." in page.text("li")


def test_tables_show_scores_differences_and_best_marks():
    text = report(section({"a": 1.0, "b": -0.5}))
    assert table_cells(text, "Means") == [
        [["method"], ["PSNR", "Y", "in", "dB", "↑"], ["LPIPS", "↓"]],
        [["bicubic"], ["20.00"], ["0.5000"]],
        [["first"], ["20.50", "+0.50"], ["0.2500", "−0.2500"]],
        [["second"], ["20.25", "+0.25"], ["0.2500", "−0.2500"]],
    ]
    assert table_cells(text, "Mean differences")[1:] == [
        [["first", "−", "bicubic"], ["+0.50", "[−1.00,", "+2.00]"], ["−0.2500", "[−0.2500,", "−0.2500]"]],
        [["second", "−", "bicubic"], ["+0.25", "[−0.50,", "+1.00]"], ["−0.2500", "[−0.2500,", "−0.2500]"]],
        [["second", "−", "first"], ["−0.25", "[−1.00,", "+0.50]"], ["+0.0000", "[+0.0000,", "+0.0000]"]],
    ]
    assert table_cells(text, "PSNR Y by image")[1:] == [
        [["a"], ["20.00"], ["22.00"], ["+2.00"], ["21.00"], ["+1.00"]],
        [["b"], ["20.00"], ["19.00"], ["−1.00"], ["19.50"], ["−0.50"]],
    ]
    means = text.partition("</table>")[0]
    assert re.findall("<strong.*?>(.*?)</strong>", means) == ["20.50", "0.2500", "0.2500"]
    assert re.findall('<span class="(better|worse)">(.*?)<', means) == [
        ("better", "+0.50"),
        ("better", "−0.2500"),
        ("better", "+0.25"),
        ("better", "−0.2500"),
    ]


def test_missing_and_infinite_scores_are_displayed():
    scores = {"a": {"bicubic": {"psnr": math.inf}, "first": {"psnr": None}, "second": {"psnr": math.inf}}}
    text = report(section({}, scores=scores))
    assert table_cells(text, "Means")[1:] == [
        [["bicubic"], ["∞", "(1", "perfect)"], ["–"]],
        [["first"], ["–"], ["–"]],
        [["second"], ["∞", "(1", "perfect)"], ["–"]],  # ∞ − ∞ is not a number
    ]
    assert table_cells(text, "PSNR Y by image")[1] == [["a"], ["∞"], ["–"], ["–"], ["∞"], ["–"]]
    assert 'data-value="Infinity"' in text
    assert "nan" not in text.lower().partition("<style>")[0] + text.partition("</style>")[2].partition("<article")[0]


def test_negative_zero_has_no_sign():
    text = report(section({"a": -0.001}))
    assert table_cells(text, "Means")[3] == [["second"], ["20.00", "+0.00"], ["0.2500", "−0.2500"]]
    assert '<span class="same">+0.00</span>' in text


def test_best_and_worst_images_are_selected_by_gain():
    gains = {"a": 1.0, "b": -2.0, "c": 3.0, "d": None, "e": 0.0, "f": math.inf}
    assert section(gains).best_and_worst(2) == (["f", "c"], ["b", "e"])
    assert section(gains).best_and_worst(4) == (["f", "c", "a", "e"], ["b"])
    assert section({"d": None}).best_and_worst(2) == ([], [])


def test_ranking_respects_metrics_where_lower_is_better():
    distances = {"a": 0.9, "b": 0.1}
    rows = {name: {"bicubic": {"lpips": 0.5}, "second": {"lpips": value}} for name, value in distances.items()}
    ranked = section({}, scores=rows, methods=("bicubic", "second"), metrics=[LPIPS])
    assert ranked.best_and_worst(1) == (["b"], ["a"])


def test_only_the_best_and_worst_images_with_crops_are_shown():
    photos = section({"a": 1.0, "b": -1.0, "c": 0.0, "d": 2.0})
    assert Page(report(photos)).text("h4") == ["d", "b"]
    del photos.crops["b"]
    assert Page(report(photos)).text("h4") == ["d"]


def test_names_are_escaped():
    rows = {HOSTILE: {HOSTILE: {HOSTILE: 20.0}, "second": {HOSTILE: 21.0}}}
    versions = make_versions(models=("second",))
    versions = ImageVersions(
        versions.low, {HOSTILE: versions.outputs["bicubic"], "second": versions.outputs["second"]}, versions.high
    )
    metric = Metric(HOSTILE, HOSTILE, HOSTILE, True, 2, True, "")
    hostile = section({}, versions, HOSTILE, rows, (HOSTILE, "second"), [metric])
    hostile.errors.append(EsrganError(HOSTILE))
    text = render_html(Evaluation({HOSTILE: HOSTILE}, HOSTILE, [hostile, hostile]), 1)
    text.encode()
    page = Page(text)
    assert len(page.all("script")) == 1
    assert f"second − {HARMLESS}" in page.text("th")
    assert f"Evaluation of {HARMLESS}" in page.text("title") + page.text("h1")
    for tag in ("h2", "h4", "dt", "dd", "li", "a", "th", "b"):
        assert HARMLESS in page.text(tag), tag
    assert f"{HARMLESS}: {HARMLESS}" in page.decoded_images()


@given(st.text(st.characters(exclude_categories=()), min_size=1))
@settings(max_examples=50)
def test_any_text_is_escaped(name):
    plain = Page(render_html(Evaluation({"term": "fact"}, "conventions")))
    page = Page(render_html(Evaluation({name: name}, name)))
    assert page.tags == plain.tags
    render_html(Evaluation({name: name}, name)).encode()


def test_article_shows_crops_error_maps_and_thumbnail():
    versions = make_versions((40, 50))
    versions.outputs["first"][64:104, 24:64] = 0
    versions.outputs["second"][64:104, 24:64] = 255
    page = Page(report(section({"a": 1.0}, versions=versions)))
    shown = page.decoded_images()
    assert {alt: image.size for alt, image in shown.items() if ": a" in alt} == {
        "LR: a": (32, 32),
        **{f"{method}: a": (128, 128) for method in ("bicubic", "first", "second", "HR")},
        **{f"{method}: a, error map": (128, 128) for method in ("bicubic", "first", "second")},
    }
    window = versions.find_window()
    assert window.top <= 64 < 104 <= window.top + 128
    assert window.left <= 24 < 64 <= window.left + 128
    crop = versions.crop(window)
    np.testing.assert_array_equal(np.array(shown["LR: a"]), crop.low)
    np.testing.assert_array_equal(np.array(shown["HR: a"]), crop.high)
    np.testing.assert_array_equal(np.array(shown["first: a"]), crop.outputs["first"])
    whole = next(image for alt, image in shown.items() if alt.startswith("all of a, 200×160 px"))
    assert whole.size == (192, 154)
    frame = next(a["style"] for _, a in page.tags if a.get("style", "").startswith("left"))
    assert frame == f"left: {window.left / 200:.2%}; top: {window.top / 160:.2%}; width: 64.00%; height: 80.00%"


def test_ground_truth_ends_the_crops_before_the_error_maps():
    alts = list(Page(report(section({"a": 1.0}))).decoded_images())
    assert alts == [
        "all of a, 144×160 px; the frame marks the crop",
        *(f"{kind}: a" for kind in ("LR", "bicubic", "first", "second", "HR")),
        *(f"{method}: a, error map" for method in ("bicubic", "first", "second")),
    ]


def test_images_link_to_their_files_relative_to_the_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos = section({"a": 1.0, "b:#1": 0.0, "c": -1.0}, dataset="set")
    photos.out_dir = Path("out/new set")
    photos.inputs = {"a": {"HR": tmp_path / "hr/a.png", "LR": Path("lr/\udcff?.png")}}
    page = Page(report(photos))
    shown = {a["aria-label"]: a["href"] for a in page.all("a") if "aria-label" in a and "c" not in a["aria-label"][-1]}
    assert shown == {
        "contact sheet of a": "new%20set/a_sheet.png",
        "full image, LR: a": "../lr/%FF%3F.png",
        **{f"full image, {m}: a": f"new%20set/a_{m}.png" for m in ("bicubic", "first", "second")},
        "full image, HR: a": "../hr/a.png",
    }
    assert not [a for a in page.all("a") if a.get("aria-label") == "full image, HR: c"]  # it has no file
    in_tables = [a["href"] for a in page.all("a") if "aria-label" not in a]
    assert in_tables == ["#d0", "#conventions", *["#d0-0", "new%20set/b%3A%231_sheet.png", "#d0-2"] * 2]


def test_conventions_and_provenance_end_the_reports():
    evaluation = Evaluation({"m": "RRDBNet"}, "8 bits; peak 255", [section({"a": 1.0})], (), {"command": "x <y>"})
    text = render_html(evaluation)
    assert text.index("</article>") < text.index("<li>8 bits</li><li>peak 255</li>") < text.index("<dt>command</dt>")
    assert "<dd>x &lt;y&gt;</dd>" in text[text.index("<footer>") :]
    assert text.count("peak 255") == 1
    assert render_markdown(evaluation).endswith("\n\nconventions: 8 bits; peak 255\n\ncommand: x <y>\n")


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_images_are_shown_and_alpha_is_ignored(channels):
    versions = make_versions(channels=channels)
    shown = Page(report(section({"a": 1.0}, versions=versions))).decoded_images()
    expected = versions.crop(versions.find_window()).outputs["first"][..., :3].squeeze()
    np.testing.assert_array_equal(np.array(shown["first: a"]), expected)


def test_report_without_ground_truth_has_no_error_maps():
    page = Page(report(section({"a": 1.0}, versions=make_versions(truth=False))))
    assert set(page.decoded_images()) == {
        "LR: a",
        "bicubic: a",
        "first: a",
        "second: a",
        "all of a, 144×160 px; the frame marks the crop",
    }
    assert not page.all("div", **{"class": "scale"})


def test_error_maps_of_known_errors():
    high = np.full((16, 16, 3), 100, np.uint8)
    none, some = high.copy(), high.copy()
    some[:8] += np.array([30, 0, 60], np.uint8)  # 30 on average
    some[8:] -= 15
    versions = ImageVersions(high[::4, ::4], {"bicubic": none, "first": some, "second": none}, high)
    np.testing.assert_array_equal(
        versions.error_maps()["first"], np.repeat([[30.0], [15.0]], 8, axis=0).repeat(16, axis=1)
    )
    text = report(section({"a": 1.0}, versions=versions))
    shown = {alt: np.array(image.convert("RGB")) for alt, image in Page(text).decoded_images().items() if "map" in alt}
    assert not shown["bicubic: a, error map"].any()
    assert shown["first: a, error map"][0, 0].tolist() == [255, 242, 168]
    assert np.abs(shown["first: a, error map"][15, 15] - np.array([172, 42, 100])).max() <= 1  # halfway
    assert "<span>0</span><span>15</span><span>≥ 30</span>" in text
    assert "mean of this crop 22.5" in text


def test_error_colours_get_lighter():
    high = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    versions = ImageVersions(high[::4, ::4], {"bicubic": np.zeros_like(high)}, high)
    text = report(section({"a": 1.0}, methods=["bicubic"], versions=versions))
    colours = np.array(Page(text).decoded_images()["bicubic: a, error map"].convert("L")).ravel()
    assert (np.diff(colours.astype(int)) >= 0).all()
    assert colours[-1] - colours[0] > 200


def test_twenty_images_of_five_models_stay_below_10_mb():
    high = skimage.data.coffee()[:400]
    low = bicubic(high, Fraction(1, 4))
    generator = np.random.default_rng(0)
    methods = ["bicubic", *(f"model {i}" for i in range(5))]
    noisy = {m: np.clip(high + generator.normal(0, 4, high.shape), 0, 255).astype(np.uint8) for m in methods[1:]}
    versions = ImageVersions(low, {"bicubic": bicubic(low, 4), **noisy}, high)
    rows = {"a": {method: {"psnr": 20.0 + i, "lpips": 0.5} for i, method in enumerate(methods)}}
    text = report(section({}, versions=versions, scores=rows, methods=methods))
    assert len(text.encode()) * 20 < 10e6


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_script_is_valid():
    script = "".join(Page(report()).text("script"))
    result = subprocess.run(["node", "--check", "-"], input=script, text=True, capture_output=True)
    assert result.returncode == 0, result.stderr
