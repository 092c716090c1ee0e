from collections import Counter

import numpy as np
import pytest

from esrgan.data import PatchDataset, read_cached_pair
from esrgan.data.augment import Augmentation
from tests.helpers.image_pairs import (
    SCALE,
    assert_equal_batches,
    assert_shares,
    asymmetric,
    random_image,
    repeat_pixels,
)

SYMMETRIES = {
    "identity": lambda x: x,
    "rotated by 90°": lambda x: np.rot90(x, 1),
    "rotated by 180°": lambda x: np.rot90(x, 2),
    "rotated by 270°": lambda x: np.rot90(x, 3),
    "flipped left to right": lambda x: x[:, ::-1],
    "flipped upside down": lambda x: x[::-1],
    "transposed": lambda x: x.swapaxes(0, 1),
    "transposed the other way": lambda x: np.rot90(x, 2).swapaxes(0, 1),
}


FLIPS = ["identity", "rotated by 180°", "flipped left to right", "flipped upside down"]


def find_symmetry(original, patch):
    """Return the name of the symmetry that turns ``original`` into ``patch``."""
    (found,) = (
        name
        for name, transform in SYMMETRIES.items()
        if transform(original).shape == patch.shape and np.array_equal(transform(original), patch)
    )
    return found


def count_symmetries(pairs, patch_size, count, **arguments):
    """Count the symmetries in a stream of one image that is as large as the patch or kept whole."""
    original_low, original_high = read_cached_pair(pairs[0])
    dataset = PatchDataset(pairs, scale=SCALE, patch_size=patch_size, seed=0, **arguments)
    counts = Counter()
    for position in range(count):
        low, high = dataset[position]
        name = find_symmetry(original_high, high)
        assert np.array_equal(low, SYMMETRIES[name](original_low))
        counts[name] += 1
    return counts


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.slow
def test_d4_draws_all_eight_symmetries_equally_often(cache_arrays, channels):
    low = asymmetric(5, 5, channels)
    counts = count_symmetries(cache_arrays([(low, repeat_pixels(low))]), (10, 10), 400)
    assert_shares(counts, dict.fromkeys(SYMMETRIES, 1 / 8))


def test_flip_or_transpose_changes_half_of_the_patches(cache_arrays):
    low = asymmetric(5, 5)
    counts = count_symmetries(
        cache_arrays([(low, repeat_pixels(low))]), (10, 10), 800, spatial_transforms="flip_or_transpose"
    )
    flip = 0.5 * 0.75 / 3
    shares = {"identity": 0.5, "transposed": 0.5 * 0.25} | dict.fromkeys(FLIPS[1:], flip)
    assert_shares(counts, shares)


def test_spatial_transforms_none_leaves_patches_unchanged(cache_arrays):
    low = asymmetric(5, 5)
    counts = count_symmetries(cache_arrays([(low, repeat_pixels(low))]), (10, 10), 20, spatial_transforms="none")
    assert counts == {"identity": 20}


@pytest.mark.parametrize("size", [(4, 7), (7, 4)])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("spatial", "shares"),
    [
        ("d4", dict.fromkeys(FLIPS, 1 / 4)),
        ("flip_or_transpose", {"identity": 1 - 0.375} | dict.fromkeys(FLIPS[1:], 0.125)),
    ],
)
@pytest.mark.slow
def test_non_square_patches_keep_their_shape(cache_arrays, size, whole, spatial, shares):
    low = asymmetric(*size)
    patch_size = None if whole else (size[0] * SCALE, size[1] * SCALE)
    counts = count_symmetries(cache_arrays([(low, repeat_pixels(low))]), patch_size, 400, spatial_transforms=spatial)
    assert_shares(counts, shares)


def test_patch_size_none_returns_whole_images(cache_arrays):
    lows = [asymmetric(height, width) for height, width in ((3, 5), (6, 6), (1, 9))]
    dataset = PatchDataset(
        cache_arrays([(low, repeat_pixels(low)) for low in lows]),
        scale=SCALE,
        patch_size=None,
        seed=0,
        hard_transforms=False,
    )
    shapes = {low.shape: high.shape for low, high in (dataset[position] for position in range(3))}
    assert shapes == {(3, 5, 3): (6, 10, 3), (6, 6, 3): (12, 12, 3), (1, 9, 3): (2, 18, 3)}


def test_unknown_spatial_transforms_raise():
    with pytest.raises(ValueError, match="d4, flip_or_transpose, none"):
        Augmentation("d8", hard=False, square=True)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("spatial", ["d4", "flip_or_transpose", "none"])
@pytest.mark.slow
def test_hard_transforms_change_only_the_lr_patch(cache_arrays, channels, spatial):
    low = random_image(16, 16, channels)
    pairs = cache_arrays([(low, repeat_pixels(low))])
    arguments = {"scale": SCALE, "patch_size": (24, 24), "seed": 0, "spatial_transforms": spatial}
    plain, hard = (PatchDataset(pairs, **arguments, hard_transforms=on) for on in (False, True))
    changed = 0
    for position in range(200):
        (plain_low, plain_high), (hard_low, hard_high) = plain[position], hard[position]
        assert np.array_equal(hard_high, plain_high)
        assert hard_low.shape == plain_low.shape
        assert hard_low.dtype == np.uint8
        changed += not np.array_equal(hard_low, plain_low)
    assert_shares(Counter({True: changed, False: 200 - changed}), {True: 1 - 0.75**2, False: 0.75**2})


def test_hard_transforms_are_off_by_default(cached_pairs):
    arguments = {"scale": SCALE, "patch_size": (12, 12), "seed": 0}
    default, off = (
        PatchDataset(cached_pairs, **arguments),
        PatchDataset(cached_pairs, **arguments, hard_transforms=False),
    )
    assert_equal_batches([default[i] for i in range(30)], [off[i] for i in range(30)])


def hard_transform_results(count, spatial="none"):
    """Return for each seed the HR patch, and whether holes and JPEG were applied to the LR patch."""
    patch = random_image(16, 16)
    patch[:, :8] = np.maximum(patch[:, :8], 1)
    patch[:, 8:] = 255  # JPEG makes no pixel in this half black, so black ones are holes
    augmentation = Augmentation(spatial, hard=True, square=True)
    plain = Augmentation(spatial, hard=False, square=True)
    found = []
    for seed in np.random.default_rng(0).integers(2**31, size=count):
        low, high = augmentation(patch, patch, np.random.default_rng(seed))
        expected = plain(patch, patch, np.random.default_rng(seed))[0]
        holes = (low == 0).all(2)
        changed = (low != expected).any(2) & ~holes
        if holes.any() and not changed.any():
            assert 4 <= holes.sum() <= 8 * 4  # eight holes of 2×2 px, which may overlap
        found.append((high, bool(holes.any()), bool(changed.any())))
    return found


@pytest.mark.slow
def test_jpeg_and_dropout_are_independent_with_probability_one_quarter():
    counts = Counter((holes, jpeg) for _, holes, jpeg in hard_transform_results(600))
    assert_shares(counts, {(h, j): (0.25 if h else 0.75) * (0.25 if j else 0.75) for h in (0, 1) for j in (0, 1)})


def test_hard_transforms_are_independent_of_spatial_transforms():
    counts = Counter()
    originals = {}
    for high, holes, jpeg in hard_transform_results(1200, "d4"):
        key = high.tobytes()
        originals.setdefault(key, len(originals))
        counts[originals[key], holes or jpeg] += 1
    assert len(originals) == 8
    share = 1 - 0.75**2
    assert_shares(counts, {(i, on): (share if on else 1 - share) / 8 for i in range(8) for on in (False, True)})


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("patch_size", [(2, 2), (6, 4), None])
def test_hard_transforms_accept_any_patch_size_and_channels(cache_arrays, channels, patch_size):
    low = random_image(5, 6, channels)
    dataset = PatchDataset(
        cache_arrays([(low, repeat_pixels(low))]), scale=SCALE, patch_size=patch_size, seed=0, hard_transforms=True
    )
    height, width = (5, 6) if patch_size is None else (patch_size[0] // SCALE, patch_size[1] // SCALE)
    for position in range(40):
        low_patch, high_patch = dataset[position]
        assert low_patch.shape == (height, width, channels)
        assert high_patch.shape == (height * SCALE, width * SCALE, channels)
        assert all(image.flags.c_contiguous for image in (low_patch, high_patch))
