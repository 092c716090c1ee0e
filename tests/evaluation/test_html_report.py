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

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from esrgan.evaluation.crops import ImageVersions
from esrgan.evaluation.html_report import render_html_report
from esrgan.evaluation.html_tables import ReportSection, select_best_and_worst
from esrgan.metrics import Metric
from esrgan.resize import bicubic
from tests.helpers.evaluation import make_versions

PSNR = Metric("psnr", "PSNR Y", "dB", True, 2, True, "Y", "")
LPIPS = Metric("lpips", "LPIPS", "", False, 4, True, "RGB", "")
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
    """Return the words of each cell of a table, without tags."""
    body = re.findall("<table.*?</table>", text, re.DOTALL)[table]
    cells = (re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.DOTALL) for row in re.findall("<tr>.*?</tr>", body))
    return [[html.unescape(re.sub(r"<[^>]*>", " ", cell)).split() for cell in row] for row in cells]


def section(gains, metrics=(PSNR, LPIPS), load_versions=lambda name: make_versions(), dataset="photos", **changes):
    """Return a dataset whose images gain the given PSNR with "second", and twice as much with "first"."""
    rows = {
        name: {
            "bicubic": {"psnr": 20.0, "lpips": 0.5},
            "first": {"psnr": None if gain is None else 20 + 2 * gain, "lpips": 0.25},
            "second": {"psnr": None if gain is None else 20 + gain, "lpips": 0.25},
        }
        for name, gain in gains.items()
    }
    means = next(iter(rows.values()), {})
    arguments = {
        "methods": ("bicubic", "first", "second"),
        "scores": rows,
        "mean_scores": means,
        "difference_lines": ["±0"],
    }
    return ReportSection(dataset=dataset, metrics=metrics, load_versions=load_versions, **arguments | changes)


def report(*sections, num_shown=1):
    return render_html_report("Report", {"Date": "1 May"}, sections, num_shown)


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
    assert page.text("h1") == ["Report"]
    assert {"photos", "others"} <= set(page.text("h2"))
    assert page.text("h4") == ["a", "b", "a"]
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in page.all("a")} <= set(ids)
    images = page.all("img")
    assert (
        len([a for a in images if a["alt"]]) == len(images) - 1 == 3 * (1 + 5 + 3)
    )  # the flip view has one without text
    assert "1 May" in page.text("dd")
    assert "±0" in page.text("li")


def test_tables_show_scores_differences_and_best_marks():
    text = report(section({"a": 1.0, "b": -1.0}, load_versions=lambda name: make_versions()))
    assert table_cells(text, 0) == [
        [["method"], ["PSNR", "Y", "in", "dB", "↑"], ["LPIPS", "↓"]],
        [["bicubic"], ["20.00"], ["0.5000"]],
        [["first"], ["22.00", "+2.00"], ["0.2500", "−0.2500"]],
        [["second"], ["21.00", "+1.00"], ["0.2500", "−0.2500"]],
    ]
    assert table_cells(text, 1)[1:] == [
        [["a"], ["20.00"], ["22.00"], ["+2.00"], ["21.00"], ["+1.00"]],
        [["b"], ["20.00"], ["18.00"], ["−2.00"], ["19.00"], ["−1.00"]],
    ]
    means = text.partition("</table>")[0]
    assert re.findall("<strong.*?>(.*?)</strong>", means) == ["22.00", "0.2500", "0.2500"]
    assert re.findall('<span class="(better|worse)">(.*?)<', means) == [
        ("better", "+2.00"),
        ("better", "−0.2500"),
        ("better", "+1.00"),
        ("better", "−0.2500"),
    ]


def test_missing_and_infinite_scores_are_displayed():
    scores = {"a": {"bicubic": {"psnr": math.inf}, "first": {"psnr": None}, "second": {"psnr": math.inf}}}
    text = report(section({"a": 0.0}, scores=scores, mean_scores=scores["a"]))
    assert table_cells(text, 0)[1:] == [
        [["bicubic"], ["∞"], ["–"]],
        [["first"], ["–"], ["–"]],
        [["second"], ["∞"], ["–"]],  # ∞ − ∞ is not a number
    ]
    assert table_cells(text, 1)[1] == [["a"], ["∞"], ["–"], ["–"], ["∞"], ["–"]]
    assert 'data-value="Infinity"' in text
    assert "nan" not in text.lower().partition("<style>")[0] + text.partition("</style>")[2].partition("<article")[0]


def test_negative_zero_has_no_sign():
    text = report(section({"a": -0.001}))
    assert table_cells(text, 0)[3] == [["second"], ["20.00", "+0.00"], ["0.2500", "−0.2500"]]
    assert '<span class="same">+0.00</span>' in text


def test_best_and_worst_images_are_selected_by_gain():
    gains = {"a": 1.0, "b": -2.0, "c": 3.0, "d": None, "e": 0.0, "f": math.inf}
    assert select_best_and_worst(section(gains), 2) == (["f", "c"], ["b", "e"])
    assert select_best_and_worst(section(gains), 4) == (["f", "c", "a", "e"], ["b"])
    assert select_best_and_worst(section({"d": None}), 2) == ([], [])


def test_ranking_respects_metrics_where_lower_is_better():
    distances = {"a": 0.9, "b": 0.1}
    rows = {name: {"bicubic": {"lpips": 0.5}, "second": {"lpips": value}} for name, value in distances.items()}
    assert select_best_and_worst(section({}, scores=rows, metrics=[LPIPS]), 1) == (["b"], ["a"])


def test_only_shown_images_are_loaded():
    loaded = []

    def load_versions(name):
        loaded.append(name)
        return make_versions()

    report(section({"a": 1.0, "b": -1.0, "c": 0.0, "d": 2.0}, load_versions=load_versions))
    assert loaded == ["d", "b"]


def test_names_are_escaped():
    rows = {HOSTILE: {HOSTILE: {"psnr": 20.0}, "second": {"psnr": 21.0}}}
    versions = make_versions(models=("second",))
    versions = ImageVersions(
        versions.low, {HOSTILE: versions.outputs["bicubic"], "second": versions.outputs["second"]}, versions.high
    )
    hostile = ReportSection(
        HOSTILE,
        (HOSTILE, "second"),
        [Metric("psnr", HOSTILE, HOSTILE, True, 2, True, "Y", "")],
        rows,
        {},
        [HOSTILE],
        lambda name: versions,
    )
    text = render_html_report(HOSTILE, {HOSTILE: HOSTILE}, [hostile, hostile], 1)
    text.encode()
    page = Page(text)
    assert len(page.all("script")) == 1
    for tag in ("title", "h1", "h2", "h4", "dt", "dd", "li", "a", "th", "b"):
        assert HARMLESS in page.text(tag), tag
    assert f"{HARMLESS}: {HARMLESS}" in page.decoded_images()


@given(st.text(st.characters(exclude_categories=()), min_size=1))
@settings(max_examples=50, deadline=None)
def test_any_text_is_escaped(name):
    plain = Page(render_html_report("title", {"term": "fact"}, [], 1))
    page = Page(render_html_report(name, {name: name}, [], 1))
    assert page.tags == plain.tags
    render_html_report(name, {}, [], 1).encode()


def test_article_shows_crops_error_maps_and_thumbnail():
    versions = make_versions((40, 50))
    versions.outputs["first"][64:104, 24:64] = 0
    versions.outputs["second"][64:104, 24:64] = 255
    page = Page(report(section({"a": 1.0}, load_versions=lambda name: versions)))
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


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_images_are_shown_and_alpha_is_ignored(channels):
    versions = make_versions(channels=channels)
    shown = Page(report(section({"a": 1.0}, load_versions=lambda name: versions))).decoded_images()
    expected = versions.crop(versions.find_window()).outputs["first"][..., :3].squeeze()
    np.testing.assert_array_equal(np.array(shown["first: a"]), expected)


def test_report_without_ground_truth_has_no_error_maps():
    load_versions = lambda name: make_versions(truth=False)  # noqa: E731
    page = Page(report(section({"a": 1.0}, load_versions=load_versions)))
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
    text = report(section({"a": 1.0}, load_versions=lambda name: versions))
    shown = {alt: np.array(image.convert("RGB")) for alt, image in Page(text).decoded_images().items() if "map" in alt}
    assert not shown["bicubic: a, error map"].any()
    assert shown["first: a, error map"][0, 0].tolist() == [255, 242, 168]
    assert np.abs(shown["first: a, error map"][15, 15] - np.array([172, 42, 100])).max() <= 1  # halfway
    assert "<span>0</span><span>15</span><span>≥ 30</span>" in text
    assert "mean error 22.5" in text


def test_error_colours_get_lighter():
    high = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    versions = ImageVersions(high[::4, ::4], {"bicubic": np.zeros_like(high)}, high)
    text = report(section({"a": 1.0}, methods=["bicubic"], load_versions=lambda name: versions))
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
    text = report(section({"a": 1.0}, methods=methods, load_versions=lambda name: versions))
    assert len(text.encode()) * 20 < 10e6


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_script_is_valid():
    script = "".join(Page(report()).text("script"))
    result = subprocess.run(["node", "--check", "-"], input=script, text=True, capture_output=True)
    assert result.returncode == 0, result.stderr
