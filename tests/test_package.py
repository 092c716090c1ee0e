"""The package as it is imported."""

import subprocess
import sys

import pytest
from PIL import Image


@pytest.mark.slow
def test_import_is_light_and_exports_resolve():
    code = (
        "import sys, esrgan; assert 'torch' not in sys.modules and 'pydantic' not in sys.modules;"
        "esrgan.Upscaler; import esrgan.evaluation; assert 'torchvision' not in sys.modules;"
        "assert set(esrgan.__all__) <= set(dir(esrgan)); [getattr(esrgan, name) for name in esrgan.__all__];"
        "assert 'wandb' not in sys.modules and 'tensorboard' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_upscaling_imports_no_more_than_it_needs(tmp_path):
    image = tmp_path / "photo.png"
    Image.new("RGB", (8, 8)).save(image)
    code = (
        f"import sys; from esrgan.cli import main; assert main(['inference', '--device', 'cpu', {str(image)!r}]) == 0;"
        "names = {'torch._dynamo', 'torchvision', 'scipy', 'skimage', 'cv2', 'albumentations', 'pydantic'};"
        "print(*sorted(names & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert found.splitlines()[-1] == ""
