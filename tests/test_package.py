"""The package as it is imported."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_import_is_light_and_exports_resolve():
    code = (
        "import sys, esrgan; assert 'torch' not in sys.modules and 'pydantic' not in sys.modules;"
        "esrgan.Upscaler; import esrgan.evaluation; assert 'torchvision' not in sys.modules;"
        "assert set(esrgan.__all__) <= set(dir(esrgan)); [getattr(esrgan, name) for name in esrgan.__all__];"
        "assert 'wandb' not in sys.modules and 'tensorboard' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
