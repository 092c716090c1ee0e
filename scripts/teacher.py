"""Create training pairs from the outputs of a teacher model: python scripts/teacher.py model.pth photos/train teacher.

Crops of each photograph are downscaled with MATLAB's bicubic (teacher/lr) and upscaled again by the model
(teacher/hr), so the HR images contain only detail that can be predicted from the LR images
(docs/explanation/bundled_models.md). Run the same command again to resume after an interruption.
"""

import argparse
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np

from esrgan import Upscaler, images
from esrgan.errors import EsrganError
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
if scale != upscaler.scale:
    sys.exit(f"error: {args.model}: expected a whole factor, got ×{upscaler.scale:g}")
has_alpha = upscaler.networks[0].in_channels == 4
random = np.random.default_rng(0)
sources: dict[Path, Path] = {}  # photographs by the beginning of their crops' path below hr and lr
problems = []
for path, relative in images.find_images([args.photos]).items():
    if sources.setdefault(relative.with_suffix(""), path) != path:
        problems.append(f"{path}: its crops would have the names of those of {sources[relative.with_suffix('')]}")
for name, path in sources.items():
    try:
        photo = images.read_pixels(path, 4 if has_alpha and images.read_shape(path)[2] == 4 else 3)
    except EsrganError as error:
        problems += error.problems
        continue
    height, width = (min(CROP, length // scale * scale) for length in photo.shape[:2])
    if 0 in (height, width):
        size = f"{photo.shape[1]}×{photo.shape[0]}"
        problems.append(f"{path}: expected at least {scale}×{scale} pixels, got {size}; remove it")
        continue
    for number in range(args.crops):
        top = int(random.integers(0, photo.shape[0] - height + 1))
        left = int(random.integers(0, photo.shape[1] - width + 1))
        high, lr = (args.out / kind / name.parent / f"{name.name}-{number}.png" for kind in ("hr", "lr"))
        if high.exists():
            continue
        for file in (high, lr):
            file.parent.mkdir(parents=True, exist_ok=True)
        crop = np.ascontiguousarray(photo[top : top + height, left : left + width])
        low = bicubic(crop, Fraction(1, scale))
        upscaled = upscaler(low)
        # After an interruption the LR image may exist without its HR image.
        images.write_pixels(lr, low, overwrite=True)
        images.write_pixels(high, upscaled)
        print(high)
if problems:
    sys.exit("\n".join(f"error: {problem}" for problem in problems))
