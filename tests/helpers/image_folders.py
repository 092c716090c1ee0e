"""Write small images, and read all files of a folder."""

from esrgan import images
from tests.helpers.models import pixels


def write_files(*paths, size=(6, 5)):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        images.write_image(path, images.ImageData((pixels(*size, 3),)))


def read_files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
