"""Train a small ESRGAN on photographs, evaluate, blend and upscale with it: python3 scripts/quickstart.py."""

import subprocess
import time

from environment import PYTHON, ROOT, install, run

install("[train]")
name = time.strftime("quickstart-%Y%m%d-%H%M%S")
psnr, gan, blend = (f"quickstart/{name}_RRDB_{kind}_x4.pth" for kind in ("PSNR", "ESRGAN", "ESRGAN_0.8"))
find_photograph = "import skimage; print(skimage.__path__[0] + '/data/chelsea.png')"
photograph = subprocess.check_output([PYTHON, "-c", find_photograph], text=True).strip()

run("train.py", "configs/quickstart.json", "-o", "quickstart", "--run-name", name)
run("net_interpolation.py", "--psnr-model-path", psnr, "--esrgan-model-path", gan, "--alpha", "0.8", blend)
run("test.py", psnr, gan, blend, "-d", "skimage", "-o", f"quickstart/{name}_test")
run("inference.py", "-m", psnr, "-o", f"quickstart/{name}_upscaled", photograph)

logs = ROOT / "quickstart" / "logs" / name
print(
    f"""
models            quickstart/{name}_RRDB_*.pth
before and after  {logs.relative_to(ROOT)}/pretraining.png and training.png
upscaled          quickstart/{name}_upscaled/chelsea_sr.png
curves            {PYTHON.relative_to(ROOT)} -m tensorboard.main --logdir quickstart/logs"""
)
