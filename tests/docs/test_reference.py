"""The reference pages that are generated from the code and stored in git are up to date."""

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent.parent / "docs"


@pytest.mark.parametrize("name", ["configuration", "public_models"])
def test_generated_page_is_up_to_date(name):
    page = runpy.run_path(str(DOCS / "conf.py"))[f"{name}_page"]()
    stored = (DOCS / "reference" / f"{name}.md").read_text("utf-8")
    assert stored == page, "`python docs/conf.py` renews the page"
