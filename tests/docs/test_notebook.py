"""The notebook runs from top to bottom."""

import os
from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).parent.parent.parent / "docs/notebooks/esrgan.ipynb"


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = "".join(str(output) for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "Upscaler(esrgan-lite: RRDBNet ×4 64/32/6, GAN stage" in shown
    assert "Upscaler(" + os.fspath(tmp_path) in shown
    assert "PSNR stage" in shown
    assert (next(tmp_path.glob("*/models")) / "mine_RRDB_PSNR_x4.pth").exists()
