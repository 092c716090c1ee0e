"""Let a model make pairs for another to learn from: python scripts/teacher.py model.pth photos/train teacher.

Of each photograph one crop is made smaller by MATLAB's bicubic (teacher/lr) and enlarged by the model (teacher/hr). A
small generator learns these sharp images sooner than the originals, as nothing in them is beyond guessing
(docs/recipe.md). Interrupted, the same command goes on.
"""

import argparse
from fractions import Fraction
from pathlib import Path

import numpy as np

from esrgan import Upscaler, images
from esrgan.resize import bicubic

CROP = 448

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("model", help="generator that teaches, a path or a name")
parser.add_argument("photos", type=Path, help="folder of photographs")
parser.add_argument("out", type=Path, help="folder for hr and lr")
args = parser.parse_args()
upscaler = Upscaler.from_file(args.model)
random = np.random.default_rng(0)
for path in images.find([args.photos]):
    photo = images.read(path, 3)
    height, width = (min(CROP, length // upscaler.scale * upscaler.scale) for length in photo.shape[:2])
    top, left = (
        int(random.integers(0, length - part + 1))
        for length, part in zip(photo.shape[:2], (height, width), strict=True)
    )
    high = args.out / "hr" / f"{path.stem}.png"
    if high.exists():
        continue
    low = bicubic(np.ascontiguousarray(photo[top : top + height, left : left + width]), Fraction(1, upscaler.scale))
    enlarged = upscaler(low)
    images.write(args.out / "lr" / high.name, low, overwrite=True)  # may be there without its partner
    images.write(high, enlarged)
    print(high)
