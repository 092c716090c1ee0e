"""Let a model make pairs for another to learn from: python scripts/teacher.py model.pth photos/train teacher.

Of each photograph one crop is made smaller by MATLAB's bicubic (teacher/lr) and enlarged by the model (teacher/hr). A
small generator learns these sharp images sooner than the originals, as nothing in them is beyond guessing
(docs/recipe.md). What is there already is kept.
"""

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np

from esrgan import Upscaler, images
from esrgan.resize import bicubic

CROP = 448

model, photos, out = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
upscaler = Upscaler.from_file(model)
random = np.random.default_rng(0)
for path in sorted(photos.iterdir()):
    photo = images.read(path, 3)
    height, width = (min(CROP, length // upscaler.scale * upscaler.scale) for length in photo.shape[:2])
    top, left = (
        int(random.integers(0, length - part + 1))
        for length, part in zip(photo.shape[:2], (height, width), strict=True)
    )
    high = out / "hr" / f"{path.stem}.png"
    if high.exists():
        continue
    low = bicubic(np.ascontiguousarray(photo[top : top + height, left : left + width]), Fraction(1, upscaler.scale))
    images.write(out / "lr" / high.name, low)
    images.write(high, upscaler(low))
    print(high)
