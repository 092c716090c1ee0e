"""Write, damage and compare image pairs in tests of the data."""

import os
import time

import numpy as np

from esrgan import images
from esrgan.data import ImagePair, PatchDataset


def random_image(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def write_image(path, image=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write_pixels(path, random_image(8, 8) if image is None else image, overwrite=True)
    return path


def problem_texts(error):
    texts = [str(problem) for problem in error.value.problems]
    assert not any("\n" in text for text in texts)
    return texts


def list_names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def write_numbered_pairs(tmp_path, count):
    return [ImagePair(write_image(tmp_path / f"{i}.png", random_image(16, 16, seed=i)), None) for i in range(count)]


HEADER_BYTES = 60


CACHE_REGIONS = {"header": 9, "checksum": 25, "HR": HEADER_BYTES + 100, "LR": -5}


def damage(path, place):
    """Flip a bit without changing size and modification time, like a bad disk."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[CACHE_REGIONS[place]] ^= 4
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def swap_names(one, other):
    """Swap the names of two files, later than they were made by more than a tick of the clock of file systems."""
    time.sleep(0.02)
    spare = one.with_name("spare")
    one.rename(spare)
    other.rename(one)
    spare.rename(other)


SCALE = 2


def repeat_pixels(low, scale=SCALE):
    """Return an HR image of repeated LR pixels, which show where each pixel comes from under any flip or rotation."""
    return low.repeat(scale, 0).repeat(scale, 1)


def asymmetric(height, width, channels=3):
    """Return an image without equal or black pixels, so that crops and transforms can be identified."""
    values = 1 + np.arange(height * width) * 7 % 251
    assert height * width <= 251
    return np.stack([values.reshape(height, width).astype(np.uint8)] * channels, 2)


def assert_shares(counts, shares):
    """Check counts against probabilities; correct code exceeds five standard deviations once in a million."""
    total = sum(counts.values())
    assert set(counts) == set(shares)
    for name, share in shares.items():
        assert abs(counts[name] - total * share) < 5 * (total * share * (1 - share)) ** 0.5, (name, counts)


def patch_stream(pairs, seed=0, **arguments):
    return PatchDataset(pairs, scale=SCALE, patch_size=(12, 12), seed=seed, hard_transforms=True, **arguments)


def assert_equal_batches(a, b):
    a, b = list(a), list(b)
    assert len(a) == len(b) > 0
    for (low_a, high_a), (low_b, high_b) in zip(a, b, strict=True):
        assert np.array_equal(low_a, low_b)
        assert np.array_equal(high_a, high_b)
