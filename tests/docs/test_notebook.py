"""The notebook runs from top to bottom, and the outputs that are stored in it are those of such a run."""

import re
import tomllib
from pathlib import Path

import nbclient
import nbformat
import pytest
import torch
from torchvision.models import vgg16

ROOT = Path(__file__).parent.parent.parent
PATH = ROOT / "docs/notebooks/esrgan.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(PATH, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown_tables(notebook):
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs if "data" in output]
    return [output.data["text/markdown"] for output in outputs if "text/markdown" in output.data]


@pytest.mark.slow
def test_runs_with_a_folder_of_photographs(notebook, write_images, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_images(tmp_path / "photographs", 3, (200, 208))
    torch.manual_seed(0)
    torch.save(vgg16(weights=None).features.state_dict(prefix="features."), tmp_path / "vgg16.pth")
    settings = "photographs, num_held_out, psnr_steps, gan_steps, vgg_weights = 'photographs', 2, 2, 2, 'vgg16.pth'"
    (position,) = (i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
    notebook.cells.insert(position + 1, nbformat.v4.new_code_cell(settings))
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()

    (folder,) = tmp_path.glob("fine_tuning_*")
    assert len(list((folder / "train").iterdir())) == 1
    assert len(list((folder / "held_out").iterdir())) == len(list((folder / "held_out_small").iterdir())) == 2
    assert {"psnr_RRDB_PSNR_x4.pth", "gan_RRDB_ESRGAN_x4.pth"} <= {path.name for path in (folder / "models").iterdir()}
    tables = shown_tables(notebook)
    assert ["PSNR Y, fine-tuned − esrgan-lite-psnr" in table for table in tables] == [False, True, True, True]
    assert "NIQE, GAN − esrgan-lite-psnr" in tables[-1]


def test_held_out_photographs_are_not_trained_on(notebook):
    (source,) = (cell.source for cell in code_cells(notebook) if "astronaut" in cell.source)
    names = re.findall(r"\w+\.(?:png|jpg)", source)
    assert len(names) == len(set(names))


def test_stored_outputs_are_those_of_one_run(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert any("image/jpeg" in output.get("data", {}) for cell in cells for output in cell.outputs)
    text = PATH.read_text("utf-8")
    assert not re.findall(r"/(?:home|root|tmp|usr|opt|work|Users)/", text)
    assert len(text) < 1.5e6


def test_stored_outputs_show_a_significant_gain(notebook):
    assert re.search(r"PSNR Y, fine-tuned − esrgan-lite-psnr: \+.*\*\*significant", shown_tables(notebook)[1])


def test_addresses_are_those_of_the_project(notebook):
    repository = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Repository"]
    owner_and_name = repository.removeprefix("https://github.com/")
    page = f"https://colab.research.google.com/github/{owner_and_name}/blob/main/{PATH.relative_to(ROOT).as_posix()}"
    assert f"]({page})" in notebook.cells[0].source
    assert f"git+{repository}" in "".join(cell.source for cell in code_cells(notebook))
