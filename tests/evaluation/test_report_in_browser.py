"""Tests of the HTML report in a browser: the slider between two images, the flip view, and narrow screens."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

from esrgan.evaluation import Evaluation, render_html
from tests.evaluation.test_html_report import section

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("playwright") is None or CHROMIUM is None, reason="needs Playwright and Chromium"
    ),
]


@pytest.fixture
def page(tmp_path):
    """Return a report on a telephone."""
    from playwright.sync_api import sync_playwright

    long = "a" * 200
    report = Evaluation({"first": "RRDBNet", "second": long}, long, [section({"a": 1.0, long: -1.0}, dataset=long)])
    (tmp_path / "report.html").write_text(render_html(report, 1), "utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844}, has_touch=True)
        errors = []
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((tmp_path / "report.html").as_uri())
        yield page
        assert not errors
        browser.close()


def test_any_two_images_are_compared_by_mouse_touch_and_keyboard(page):
    comparison = page.get_by_role("group", name="Comparison of two versions of a", exact=True)
    slider = comparison.get_by_role("slider")
    left, right = (comparison.get_by_role("combobox", name=name) for name in ("Left", "Right"))
    assert left.locator("option").all_text_contents() == ["LR", "bicubic", "first", "second", "HR"]
    assert slider.get_attribute("aria-valuetext") == "50 % second, 50 % HR"
    left.select_option("bicubic")
    right.select_option("first")
    assert slider.get_attribute("aria-valuetext") == "50 % bicubic, 50 % first"
    assert [each.get_attribute("alt") for each in comparison.locator("img").all()] == ["bicubic: a", "first: a"]

    def divider():
        clip_path = comparison.locator("img").first.evaluate("image => getComputedStyle(image).clipPath")
        return int(slider.input_value()), clip_path

    stack = comparison.locator(".stack")
    stack.scroll_into_view_if_needed()
    box = stack.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.25, box["y"] + 5)
    assert divider() == (25, "inset(0px 75% 0px 0px)")
    page.keyboard.press("ArrowRight")
    assert divider() == (26, "inset(0px 74% 0px 0px)")
    page.keyboard.press("End")
    assert divider() == (100, "inset(0px 0% 0px 0px)")
    page.touchscreen.tap(box["x"] + box["width"] * 0.75, box["y"] + 5)
    assert divider() == (75, "inset(0px 25% 0px 0px)")


def test_crops_are_flipped_without_their_links(page):
    page.locator("figure.crop button").nth(2).click()
    assert page.locator("dialog p").text_content() == "first 22.00 dB"
    page.keyboard.press("ArrowRight")
    assert page.locator("dialog p").text_content() == "second 21.00 dB"


def test_the_page_never_scrolls_sideways(page):
    for zoom in ("1", "4"):
        page.get_by_label("Zoom").fill(zoom)
        for width in (320, 390, 1600):
            page.set_viewport_size({"width": width, "height": 800})
            page.wait_for_timeout(50)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            width_px, height_px = page.locator("figure.crop img").first.evaluate("i => [i.width, i.height]")
            assert width_px == height_px
