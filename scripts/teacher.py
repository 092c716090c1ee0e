"""Create training pairs from the outputs of a teacher model: python scripts/teacher.py model.pth photos/train teacher.

Crops of each photograph are downscaled with MATLAB's bicubic (teacher/lr) and upscaled again by the model
(teacher/hr), so the HR images contain only detail that can be predicted from the LR images
(docs/explanation/bundled_models.md). Run the same command again to resume after an interruption.
"""

import argparse
from fractions import Fraction
from pathlib import Path

import numpy as np

from esrgan import Upscaler, images
from esrgan.inference.options import COLOR_FIXES
from esrgan.resize import bicubic

CROP = 320  # largest side of a crop in px

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("model", help="teacher model: name or path")
parser.add_argument("photos", type=Path, help="folder of photographs")
parser.add_argument("out", type=Path, help="output folder for hr and lr")
parser.add_argument("--crops", type=int, default=2, help="crops per photograph (default: %(default)s)")
parser.add_argument("--precision", default="auto", help="as for inference.py (default: %(default)s)")
parser.add_argument("--color-fix", choices=COLOR_FIXES, help="as for inference.py, against shifted colours")
args = parser.parse_args()
upscaler = Upscaler.from_file(args.model, precision=args.precision, color_fix=args.color_fix)
scale = round(upscaler.scale)
random = np.random.default_rng(0)
for folder in ("hr", "lr"):
    (args.out / folder).mkdir(parents=True, exist_ok=True)
for path in images.find_images([args.photos]):
    photo = images.read_pixels(path, 3)
    height, width = (min(CROP, length // scale * scale) for length in photo.shape[:2])
    for number in range(args.crops):
        top = int(random.integers(0, photo.shape[0] - height + 1))
        left = int(random.integers(0, photo.shape[1] - width + 1))
        high = args.out / "hr" / f"{path.stem}-{number}.png"
        if high.exists():
            continue
        crop = np.ascontiguousarray(photo[top : top + height, left : left + width])
        low = bicubic(crop, Fraction(1, scale))
        upscaled = upscaler(low)
        # After an interruption the LR image may exist without its HR image.
        images.write_pixels(args.out / "lr" / high.name, low, overwrite=True)
        images.write_pixels(high, upscaled)
        print(high)
