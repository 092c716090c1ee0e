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
from hypothesis.extra.numpy import arrays
from PIL import Image

from esrgan.evaluation.crops import Pictures, Window, most_different
from esrgan.evaluation.report import html_report
from esrgan.evaluation.tables import Section, best_and_worst
from esrgan.metrics import Metric
from esrgan.resize import bicubic

PSNR = Metric("psnr", "PSNR Y", "dB", True, 2, True, "Y", "")
LPIPS = Metric("lpips", "LPIPS", "", False, 4, True, "RGB", "")
VOID = {"meta", "img", "input", "link", "br", "hr"}
HOSTILE = "<script>alert(1)</script> \"quoted\" 'x' & größe 日本 \udcff\u202e\n.png"
HARMLESS = (
    "<script>alert(1)</script> \"quoted\" 'x' & größe 日本 \N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER} .png"
)


class Page(HTMLParser):
    """A page taken apart: its tags with their attributes, and its text by the tag around it."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} is there twice"
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

    def pictures(self):
        """Give the images by their alternative texts."""
        return {
            a["alt"]: Image.open(io.BytesIO(base64.b64decode(a["src"].partition("base64,")[2])))
            for a in self.all("img")
            if "src" in a
        }


def rows_of(text, table):
    """The cells of a table of a page, without tags."""
    body = re.findall("<table.*?</table>", text, re.DOTALL)[table]
    cells = (re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.DOTALL) for row in re.findall("<tr>.*?</tr>", body))
    return [[html.unescape(re.sub(r"<[^>]*>", " ", cell)).split() for cell in row] for row in cells]


def pictures(size=(40, 36), channels=3, scale=4, models=("first", "second"), truth=True, seed=0):
    generator = np.random.default_rng(seed)
    low, *large = (
        generator.integers(0, 256, (size[0] * s, size[1] * s, channels), dtype=np.uint8)
        for s in (1, *[scale] * (len(models) + 2))
    )
    return Pictures(low, dict(zip(("bicubic", *models), large, strict=False)), large[-1] if truth else None)


def section(gains, metrics=(PSNR, LPIPS), load=lambda name: pictures(), dataset="photos", **changes):
    """A dataset whose images gain so much PSNR by "second", and twice that by "first"."""
    rows = {
        name: {
            "bicubic": {"psnr": 20.0, "lpips": 0.5},
            "first": {"psnr": None if gain is None else 20 + 2 * gain, "lpips": 0.25},
            "second": {"psnr": None if gain is None else 20 + gain, "lpips": 0.25},
        }
        for name, gain in gains.items()
    }
    means = next(iter(rows.values()), {})
    arguments = {"methods": ("bicubic", "first", "second"), "rows": rows, "means": means, "differences": ["±0"]}
    return Section(dataset=dataset, metrics=metrics, load=load, **arguments | changes)


def report(*sections, shown=1):
    return html_report("Report", {"Date": "1 May"}, sections, shown)


def test_is_one_file_that_needs_no_network():
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


def test_structure():
    text = report(section({"a": 1.0, "b": -1.0, "c": 0.0}), section({"a": 2.0}, dataset="others"))
    page = Page(text)
    assert page.text("h1") == ["Report"]
    assert {"photos", "others"} <= set(page.text("h2"))
    assert page.text("h4") == ["a", "b", "a"]
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in page.all("a")} <= set(ids)
    images = page.all("img")
    assert len([a for a in images if a["alt"]]) == len(images) - 1 == 3 * (1 + 5 + 3)  # one is the flip view's, empty
    assert "1 May" in page.text("dd")
    assert "±0" in page.text("li")


def test_figures_deltas_and_the_best():
    text = report(section({"a": 1.0, "b": -1.0}, load=lambda name: pictures()))
    assert rows_of(text, 0) == [
        [["method"], ["PSNR", "Y", "in", "dB", "↑"], ["LPIPS", "↓"]],
        [["bicubic"], ["20.00"], ["0.5000"]],
        [["first"], ["22.00", "+2.00"], ["0.2500", "−0.2500"]],
        [["second"], ["21.00", "+1.00"], ["0.2500", "−0.2500"]],
    ]
    assert rows_of(text, 1)[1:] == [
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


def test_missing_and_infinite_figures():
    figures = {"a": {"bicubic": {"psnr": math.inf}, "first": {"psnr": None}, "second": {"psnr": math.inf}}}
    text = report(section({"a": 0.0}, rows=figures, means=figures["a"]))
    assert rows_of(text, 0)[1:] == [
        [["bicubic"], ["∞"], ["–"]],
        [["first"], ["–"], ["–"]],
        [["second"], ["∞"], ["–"]],  # ∞ − ∞ is no number
    ]
    assert rows_of(text, 1)[1] == [["a"], ["∞"], ["–"], ["–"], ["∞"], ["–"]]
    assert 'data-value="Infinity"' in text
    assert "nan" not in text.lower().partition("<style>")[0] + text.partition("</style>")[2].partition("<article")[0]


def test_negative_zero_has_no_sign():
    text = report(section({"a": -0.001}))
    assert rows_of(text, 0)[3] == [["second"], ["20.00", "+0.00"], ["0.2500", "−0.2500"]]
    assert '<span class="same">+0.00</span>' in text


def test_best_and_worst_images():
    gains = {"a": 1.0, "b": -2.0, "c": 3.0, "d": None, "e": 0.0, "f": math.inf}
    assert best_and_worst(section(gains), 2) == (["f", "c"], ["b", "e"])
    assert best_and_worst(section(gains), 4) == (["f", "c", "a", "e"], ["b"])
    assert best_and_worst(section({"d": None}), 2) == ([], [])


def test_lower_may_be_better():
    distances = {"a": 0.9, "b": 0.1}
    rows = {name: {"bicubic": {"lpips": 0.5}, "second": {"lpips": value}} for name, value in distances.items()}
    assert best_and_worst(section({}, rows=rows, metrics=[LPIPS]), 1) == (["b"], ["a"])


def test_only_what_is_shown_is_loaded():
    loaded = []

    def load(name):
        loaded.append(name)
        return pictures()

    report(section({"a": 1.0, "b": -1.0, "c": 0.0, "d": 2.0}, load=load))
    assert loaded == ["d", "b"]


def test_names_are_escaped():
    rows = {HOSTILE: {HOSTILE: {"psnr": 20.0}, "second": {"psnr": 21.0}}}
    images = pictures(models=("second",))
    images = Pictures(images.low, {HOSTILE: images.outputs["bicubic"], "second": images.outputs["second"]}, images.high)
    hostile = Section(
        HOSTILE,
        (HOSTILE, "second"),
        [Metric("psnr", HOSTILE, HOSTILE, True, 2, True, "Y", "")],
        rows,
        {},
        [HOSTILE],
        lambda name: images,
    )
    text = html_report(HOSTILE, {HOSTILE: HOSTILE}, [hostile, hostile], 1)
    text.encode()
    page = Page(text)
    assert len(page.all("script")) == 1
    for tag in ("title", "h1", "h2", "h4", "dt", "dd", "li", "a", "th", "b"):
        assert HARMLESS in page.text(tag), tag
    assert f"{HARMLESS}: {HARMLESS}" in page.pictures()


@given(st.text(st.characters(exclude_categories=()), min_size=1))
@settings(max_examples=50, deadline=None)
def test_any_text_is_text(name):
    plain = Page(html_report("title", {"term": "fact"}, [], 1))
    page = Page(html_report(name, {name: name}, [], 1))
    assert page.tags == plain.tags
    html_report(name, {}, [], 1).encode()


def test_pictures_of_an_image():
    images = pictures((40, 50))
    images.outputs["first"][64:104, 24:64] = 0
    images.outputs["second"][64:104, 24:64] = 255
    page = Page(report(section({"a": 1.0}, load=lambda name: images)))
    shown = page.pictures()
    assert {alt: image.size for alt, image in shown.items() if ": a" in alt} == {
        "LR: a": (32, 32),
        **{f"{method}: a": (128, 128) for method in ("bicubic", "first", "second", "HR")},
        **{f"{method}: a, error map": (128, 128) for method in ("bicubic", "first", "second")},
    }
    window = images.window()
    assert window.top <= 64 < 104 <= window.top + 128
    assert window.left <= 24 < 64 <= window.left + 128
    crop = images.cut(window)
    np.testing.assert_array_equal(np.array(shown["LR: a"]), crop.low)
    np.testing.assert_array_equal(np.array(shown["HR: a"]), crop.high)
    np.testing.assert_array_equal(np.array(shown["first: a"]), crop.outputs["first"])
    whole = next(image for alt, image in shown.items() if alt.startswith("the whole of a, 200×160 px"))
    assert whole.size == (192, 154)
    frame = next(a["style"] for _, a in page.tags if a.get("style", "").startswith("left"))
    assert frame == f"left: {window.left / 200:.2%}; top: {window.top / 160:.2%}; width: 64.00%; height: 80.00%"


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_alpha(channels):
    images = pictures(channels=channels)
    shown = Page(report(section({"a": 1.0}, load=lambda name: images))).pictures()
    expected = images.cut(images.window()).outputs["first"][..., :3].squeeze()
    np.testing.assert_array_equal(np.array(shown["first: a"]), expected)


def test_alpha_does_not_choose_the_window():
    images = pictures((40, 50), channels=4)
    images.outputs["first"][...] = images.outputs["second"][...] = 7
    images.outputs["first"][100:, 100:, 3] = 255
    images.outputs["first"][:4, :4, 0] = 9
    assert images.window() == Window(0, 0, 128, 128)


def test_a_single_model_is_compared_with_bicubic():
    images = pictures((40, 50), models=("only",))
    images.outputs["bicubic"][...] = images.outputs["only"]
    images.outputs["bicubic"][156:, 196:] ^= 255
    assert images.window() == Window(32, 72, 128, 128)
    more = Pictures(images.low, {**images.outputs, "other": images.outputs["only"]})
    assert more.window() == Window(0, 0, 128, 128)  # bicubic differs there, but the models do not


def test_without_ground_truth():
    load = lambda name: pictures(truth=False)  # noqa: E731
    page = Page(report(section({"a": 1.0}, load=load)))
    assert set(page.pictures()) == {
        "LR: a",
        "bicubic: a",
        "first: a",
        "second: a",
        "the whole of a, 144×160 px, with a frame around what is shown",
    }
    assert not page.all("div", **{"class": "scale"})


def test_error_maps_of_known_errors():
    high = np.full((16, 16, 3), 100, np.uint8)
    none, some = high.copy(), high.copy()
    some[:8] += np.array([30, 0, 60], np.uint8)  # 30 on average
    some[8:] -= 15
    images = Pictures(high[::4, ::4], {"bicubic": none, "first": some, "second": none}, high)
    np.testing.assert_array_equal(images.errors()["first"], np.repeat([[30.0], [15.0]], 8, axis=0).repeat(16, axis=1))
    text = report(section({"a": 1.0}, load=lambda name: images))
    shown = {alt: np.array(image.convert("RGB")) for alt, image in Page(text).pictures().items() if "map" in alt}
    assert not shown["bicubic: a, error map"].any()
    assert shown["first: a, error map"][0, 0].tolist() == [255, 242, 168]
    assert np.abs(shown["first: a, error map"][15, 15] - np.array([172, 42, 100])).max() <= 1  # half way
    assert "<span>0</span><span>15</span><span>≥ 30</span>" in text
    assert "mean error 22.5" in text


def test_error_colours_get_lighter():
    high = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    images = Pictures(high[::4, ::4], {"bicubic": np.zeros_like(high)}, high)
    text = report(section({"a": 1.0}, methods=["bicubic"], load=lambda name: images))
    colours = np.array(Page(text).pictures()["bicubic: a, error map"].convert("L")).ravel()
    assert (np.diff(colours.astype(int)) >= 0).all()
    assert colours[-1] - colours[0] > 200


@given(
    arrays(np.uint8, st.tuples(st.integers(2, 3), st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3]))),
    st.integers(1, 3),
    st.integers(1, 9),
)
@settings(max_examples=200, deadline=None)
def test_window_by_brute_force(small, step, size):
    images = small.repeat(step, axis=1).repeat(step, axis=2)
    images[:, ::2] ^= np.arange(images.shape[2], dtype=np.uint8)[:, None]  # not constant in the LR pixels
    size = max(size, step)
    window = most_different(list(images), step, size)
    height, width = (min(size, side) // step * step for side in images.shape[1:3])
    assert (window.height, window.width) == (height, width)
    spread = images.max(axis=0).astype(int) - images.min(axis=0)
    sums = {
        (top, left): spread[top : top + height, left : left + width].sum()
        for top in range(0, images.shape[1] - height + 1, step)
        for left in range(0, images.shape[2] - width + 1, step)
    }
    assert (window.top, window.left) == max(sums, key=sums.__getitem__)


@pytest.mark.parametrize(
    "change",
    [
        {"high": np.zeros((160, 140, 3), np.uint8)},
        {"high": np.zeros((160, 144, 1), np.uint8)},
        {"high": np.zeros((160, 144, 3), np.float32)},
        {"low": np.zeros((39, 36, 3), np.uint8)},
        {"low": np.zeros((200, 200, 3), np.uint8)},
    ],
)
def test_pictures_must_fit(change):
    images = pictures()
    with pytest.raises(ValueError, match="expected uint8 images of a multiple of"):
        Pictures(**{"low": images.low, "outputs": images.outputs, "high": images.high} | change)


def test_twenty_images_of_five_models_stay_below_10_mb():
    high = skimage.data.coffee()[:400]
    low = bicubic(high, Fraction(1, 4))
    generator = np.random.default_rng(0)
    methods = ["bicubic", *(f"model {i}" for i in range(5))]
    noisy = {m: np.clip(high + generator.normal(0, 4, high.shape), 0, 255).astype(np.uint8) for m in methods[1:]}
    images = Pictures(low, {"bicubic": bicubic(low, 4), **noisy}, high)
    text = report(section({"a": 1.0}, methods=methods, load=lambda name: images))
    assert len(text.encode()) * 20 < 10e6


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_script_is_valid():
    script = "".join(Page(report()).text("script"))
    result = subprocess.run(["node", "--check", "-"], input=script, text=True, capture_output=True)
    assert result.returncode == 0, result.stderr
