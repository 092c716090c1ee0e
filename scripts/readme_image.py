"""Create the before/after image of the README with the bundled models: python scripts/readme_image.py.

Photographs of scikit-image, which no bundled model was trained on, are downscaled by 4 with MATLAB's bicubic and
upscaled again. The crops show hair, fabric and edges at full resolution.
"""

from fractions import Fraction
from pathlib import Path

import skimage

from esrgan import Upscaler, images
from esrgan.resize import bicubic

CROPS = {"astronaut": (64, 160), "chelsea": (70, 128), "coffee": (80, 220)}  # top and left in px of the original
SIDE = 192
TARGET = Path(__file__).parent.parent / "docs" / "pictures" / "before_after.jpg"

models = {name: Upscaler.from_file(name, precision="fp32") for name in ("esrgan-lite", "esrgan-full")}
rows = []
for name, (top, left) in CROPS.items():
    original = images.read_pixels(Path(skimage.__path__[0]) / "data" / f"{name}.png", 3)
    original = original[: original.shape[0] // 4 * 4, : original.shape[1] // 4 * 4]
    low = bicubic(original, Fraction(1, 4))
    versions = [bicubic(low, 4), *(model(low) for model in models.values()), original]
    rows.append([version[top : top + SIDE, left : left + SIDE] for version in versions])
TARGET.parent.mkdir(exist_ok=True)
images.write_pixels(TARGET, images.make_contact_sheet(rows, ["bicubic", *models, "original"]), overwrite=True)
print(TARGET)
