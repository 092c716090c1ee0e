"""Chains of models, sizes of the output, seamless textures, and removal of colour drift."""

import numpy as np
import pytest
import torch

from esrgan import EsrganError, Upscaler
from esrgan.cli import inference
from esrgan.images import ImageData, read_image, write_image
from esrgan.inference import FileOptions, UpscaleOptions, plan_jobs, upscale_files, upscale_image
from esrgan.inference.network import Network, receptive_field
from esrgan.inference.seamless import plan_margins
from esrgan.models import RRDBNet, SRVGGNetCompact
from tests.helpers.models import make_model, pixels, run

CPU = torch.device("cpu")


def networks(*scales):
    """Return small networks with large weights."""
    torch.manual_seed(0)
    made = [SRVGGNetCompact(scale, 3, num_feat=8, num_conv=1) for scale in scales]
    for network in made:
        for weight in network.parameters():
            weight.data.mul_(2)
    return made


@pytest.mark.usefixtures("winograd_on_every_cpu")
def test_models_are_applied_one_after_the_other_without_rounding():
    first, second = networks(1, 2)
    image = pixels(12, 10, 3)
    high = Upscaler([first, second], CPU)(image)
    assert high.shape == (24, 20, 3)
    low = torch.from_numpy(image / np.float32(255)).permute(2, 0, 1)[None]
    first, second = (each.to(memory_format=torch.channels_last) for each in (first, second))  # others round differently
    with torch.inference_mode():
        expected = second(first(low).clamp(0, 1)).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(high, np.rint(expected * 255).astype(np.uint8))


@pytest.mark.parametrize("factor", [2, 3, 1.5])
def test_an_output_is_reduced_before_the_next_network(factor):
    first, second = networks(4, 2)
    image = np.repeat(np.repeat(pixels(5, 4, 3), 3, axis=0), 3, axis=1).astype(np.float32) / 255
    chain = Upscaler([first, second], CPU, factors=[factor, 2])
    expected = Upscaler(second, CPU)(Upscaler(first, CPU, factors=[factor])(image))
    assert chain.output_size(*image.shape[:2]) == expected.shape[:2]
    np.testing.assert_array_equal(chain(image), expected)


def test_a_size_replaces_only_the_last_reduction():
    first, second = networks(2, 4)
    image = pixels(6, 5, 3)
    reduced = Upscaler([first, second], CPU, factors=[1, 2], outscale=4)
    assert reduced.computed_size(6, 5) == (24, 20)
    assert not reduced.is_resized(6, 5)
    np.testing.assert_array_equal(reduced(image), Upscaler([first, second], CPU, factors=[1, 4])(image))
    assert reduced.scale == 2
    assert Upscaler(second, CPU, factors=[2], outscale=8).computed_size(6, 5) == (48, 40)  # ×2, then ×4
    with pytest.raises(EsrganError, match="a ×1 model cannot upscale by 8"):
        Upscaler(second, CPU, factors=[1], outscale=8)


def test_chain_keeps_depth_alpha_and_grey():
    chain = Upscaler(networks(2, 2), CPU)
    assert chain.scale == 4
    for shape in ((6, 5), (6, 5, 2), (6, 5, 4)):
        assert chain(pixels(*shape)).shape == (24, 20, *shape[2:])
    deep = chain(pixels(6, 5, 3).astype(np.uint16) * 257)
    assert deep.dtype == np.uint16
    assert len(np.unique(deep % 257)) > 9
    grey = chain(pixels(6, 5, 1).repeat(3, 2))
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])


def test_progress_of_a_chain_rises_to_1():
    seen = []
    Upscaler(networks(1, 2, 2), CPU)(pixels(150, 130, 3), seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1)
    assert len(seen) > 6


def test_command_applies_several_models(tmp_path):
    models = [make_model(tmp_path / f"{i}.pth", seed=i) for i in range(2)]
    write_image(tmp_path / "a.png", ImageData((pixels(6, 7, 3),)))
    assert run(inference, tmp_path / "a.png", "-m", models[0], "-m", models[1], "--precision", "fp32") == 0
    (frame,) = read_image(tmp_path / "a_sr.png").frames
    expected = Upscaler.from_file(models, "cpu", "fp32")(read_image(tmp_path / "a.png").frames[0])
    np.testing.assert_array_equal(frame, expected)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"outscale": 1.5}, (30, 60)),
        ({"width": 100}, (50, 100)),
        ({"height": 10}, (10, 20)),
        ({"long_side": 70}, (35, 70)),
        ({"megapixels": 0.0032}, (40, 80)),
        ({}, (40, 80)),
    ],
)
def test_size_of_the_output_is_chosen(options, size):
    upscaler = Upscaler(networks(2), CPU, **options)
    assert upscaler.output_size(20, 40) == size
    assert upscaler(pixels(20, 40, 3)).shape == (*size, 3)


def test_reduced_output_is_antialiased():
    upscaler = Upscaler(networks(4), CPU, long_side=16)
    stripes = np.tile(np.array([0, 255], np.uint8), (16, 8))  # finer than half the output could show
    with torch.no_grad():
        for weight in upscaler.network.body[-1].parameters():
            weight.zero_()  # the network repeats pixels
    assert np.ptp(upscaler(stripes)) > 150
    coarse = Upscaler([upscaler.network], CPU, long_side=8)(stripes)
    assert abs(coarse[:, 1:-1].astype(int) - 127).max() <= 2


def test_size_beyond_the_model_applies_it_again():
    upscaler = Upscaler(networks(2), CPU, outscale=5)
    assert upscaler.computed_size(6, 7) == (48, 56)
    high = upscale_image(upscaler, ImageData((pixels(6, 7, 3),)))
    assert high.frames[0].shape == (30, 35, 3)
    assert high.notes == ("the model was applied repeatedly (×8) and its output reduced",)
    pages = ImageData((pixels(20, 20, 3), pixels(3, 3, 3)))  # only the second page needs it
    (note,) = upscale_image(Upscaler(networks(2), CPU, width=24), pages).notes
    assert note == "the model was applied repeatedly (×8)"
    thrice = Upscaler(networks(2) * 3, CPU, outscale=5)
    image = pixels(6, 7, 3)
    np.testing.assert_array_equal(upscaler(image), thrice(image))


def test_no_model_is_refused():
    with pytest.raises(ValueError, match="expected a network or several, got none"):
        Upscaler.from_file([], "cpu")


def test_a_model_that_does_not_enlarge_cannot_reach_a_larger_size(tmp_path):
    with pytest.raises(EsrganError, match="a ×1 model cannot upscale by 2; add a model that upscales"):
        Upscaler(networks(1), CPU, outscale=2)
    write_image(tmp_path / "a.png", ImageData((pixels(6, 7, 3),)))
    jobs, _ = plan_jobs([str(tmp_path)], None)
    (result,) = upscale_files(Upscaler(networks(1), CPU, width=70), jobs)
    assert str(result.error) == f"{tmp_path / 'a.png'}: a ×1 model cannot upscale by 10; add a model that upscales"
    (result,) = upscale_files(Upscaler(networks(2), CPU, width=7000), jobs, FileOptions())
    assert "upscaling by 1e+03 is beyond the limit of 64" in str(result.error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 5, "height": 5}, "expected one size, got width and height"),
        ({"outscale": 2, "megapixels": 5}, "expected one size, got outscale and megapixels"),
        ({"long_side": 0}, "long_side: expected a number above 0"),
        ({"outscale": 65}, "at most 64"),
        ({"width": 10**400}, "width: expected a number above 0 and at most 1,000,000,000"),
        ({"megapixels": float("inf")}, "megapixels: expected a number above 0 and at most 1,000,000,000, got inf"),
        ({"outscale": "2"}, "outscale: expected a number, got '2'"),
        ({"width": 2.5}, "width: expected a whole number, got 2.5"),
        ({"height": True}, "height: expected a whole number, got True"),
        ({"seamless": "x"}, "seamless: expected wrap, wrap-x, wrap-y, mirror, got x"),
        ({"color_fix": "x"}, "color_fix: expected mean, low, got x"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        UpscaleOptions(**options)


def test_command_refuses_two_sizes(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(inference, tmp_path, "--width", 5, "--outscale", 2)
    assert "not allowed with argument --width" in capsys.readouterr().err


@pytest.mark.parametrize("digits", [10, 320, 5000])
def test_command_refuses_a_size_with_many_digits(tmp_path, capsys, digits):
    with pytest.raises(SystemExit):
        run(inference, tmp_path, "--width", "9" * digits)
    error = capsys.readouterr().err
    assert "--width: expected an integer from 1 to 1000000000, got 9999999999" in error
    assert len(error) < 400


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("options", [{}, {"outscale": 1}])
def test_wrapped_image_is_shifted_with_its_input(channels, dtype, options):
    upscaler = Upscaler(networks(1, 2), CPU, seamless="wrap", **options)
    image = pixels(40, 36, channels)
    image[..., -1] = np.where(image[..., -1] > 200, 0, image[..., -1])
    image = image if dtype == np.uint8 else (image / np.float32(255)).astype(dtype)
    factor = upscaler.output_size(40, 36)[0] // 40
    high = upscaler(image)
    for rows, columns in ((20, 0), (0, 18), (1, 35)):
        shifted = upscaler(np.roll(image, (rows, columns), (0, 1)))
        np.testing.assert_array_equal(shifted, np.roll(high, (rows * factor, columns * factor), (0, 1)))


def test_rrdbnet_and_folded_networks_wrap_too():
    torch.manual_seed(0)
    for network in (RRDBNet(4, 3, 8, 4, 1, 2, 3), RRDBNet(2, 3, 8, 4, 1, 2, 3, pixel_unshuffle=True)):
        upscaler = Upscaler(network, CPU, seamless="wrap")
        image = pixels(20, 24, 3)
        shifted = upscaler(np.roll(image, (10, 4), (0, 1)))
        scale = network.scale_factor
        np.testing.assert_array_equal(shifted, np.roll(upscaler(image), (10 * scale, 4 * scale), (0, 1)))


def test_large_images_are_continued_as_far_as_the_network_sees():
    torch.manual_seed(0)
    network = RRDBNet(1, 3, 8, 4, 2, 2, 3, residual_scaling=1, small_init="trunk")
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(1.5)  # so that what is far away matters
    upscaler = Upscaler(network, CPU, seamless="wrap")
    image = pixels(150, 140, 3)  # too many pixels to be continued further than that
    shifted = upscaler(np.roll(image, (75, 70), (0, 1)))
    np.testing.assert_array_equal(shifted, np.roll(upscaler(image), (75, 70), (0, 1)))


@pytest.mark.parametrize("sides", [(200, 300), (7, 600), (160, 161)])
def test_margins_are_wide_enough_and_whole_folds_and_whole_pixels_of_the_output(sides):
    folded = RRDBNet(1, 3, 8, 4, 1, 1, 2, pixel_unshuffle=True)
    chain = [*networks(2), folded]
    sizes = [(400, 500), (800, 1000), (800, 1000)]
    ((first, _), (second, _)) = plan_margins(chain, sizes, (800, 1000), "wrap")
    resizing = 4 * 2  # pixels of the output
    assert second >= receptive_field(folded) + resizing
    assert first >= receptive_field(chain[0]) + (receptive_field(folded) + resizing) / 2
    for high in ((400, 600), (150, 225)):
        later = [(sides[0] * 2, sides[1] * 2)] * 2
        scale, planned = 1, plan_margins(chain, [sides, *later], high, "wrap")
        for generator, margins in zip(chain, planned, strict=True):
            assert all(each >= later for each, later in zip(planned[0], [m / 2 for m in planned[1]], strict=True))
            for side, new, margin in zip(sides, high, margins, strict=True):
                assert margin % folded.unshuffle_factor == 0
                assert margin * new % (side * scale) == 0
            scale *= generator.scale_factor


def test_repeated_and_chained_networks_wrap_too():
    torch.manual_seed(0)
    folded = RRDBNet(2, 3, 8, 4, 1, 1, 2, pixel_unshuffle=True)
    image = pixels(40, 36, 3)
    for chain, options in ((networks(2), {"width": 144}), ([*networks(1, 2), folded], {}), ([folded], {"height": 160})):
        upscaler = Upscaler(chain, CPU, seamless="wrap", **options)
        shifted = upscaler(np.roll(image, (8, 4), (0, 1)))
        np.testing.assert_array_equal(shifted, np.roll(upscaler(image), (8 * 4, 4 * 4), (0, 1)))


@pytest.mark.parametrize(
    ("factors", "options"), [([1, 2], {}), ([4 / 3, 2], {}), ([4 / 3, 1.5], {}), ([1, 1], {"width": 282})]
)
def test_reduced_networks_wrap_too(factors, options):
    image = pixels(150, 141, 3)  # too many pixels to be continued further than necessary
    upscaler = Upscaler(networks(2, 2), CPU, seamless="wrap", factors=factors, **options)
    high = upscaler(image)
    turns = (75, 69)
    shift = tuple(turn * new // old for turn, new, old in zip(turns, high.shape, image.shape, strict=False))
    shifted = upscaler(np.roll(image, turns, (0, 1))).astype(int)
    assert np.abs(shifted - np.roll(high, shift, (0, 1))).max() <= 1


def test_a_pixel_that_is_enlarged_much_is_not_continued_far(monkeypatch):
    """Between two networks, what lies beyond the margins of the second one is cut off."""
    torch.manual_seed(0)
    upscaler = Upscaler(RRDBNet(4, 3, 8, 4, 3, 2, 3), CPU, width=33, seamless="wrap")
    work = []
    run = Network.run
    monkeypatch.setattr(
        Network, "run", lambda self, low, *rest: work.append(low[0, 0].numel()) or run(self, low, *rest)
    )
    assert upscaler(pixels(1, 1, 3)).shape == (33, 33, 3)
    assert sum(work) < 200_000


@pytest.mark.parametrize(
    ("seamless", "size", "problem"),
    [
        ("wrap", (6, 7), "seams are not exact: the model needs multiples of 2 px, and the width is none"),
        (
            "mirror",
            (5, 7),
            "seams are not exact: the model needs multiples of 2 px, and the height and the width is none",
        ),
        ("wrap-y", (6, 7), None),
        ("wrap", (6, 8), None),
        (None, (5, 7), None),
    ],
)
def test_seams_that_are_not_exact_are_named(seamless, size, problem):
    torch.manual_seed(0)
    upscaler = Upscaler(RRDBNet(2, 3, 8, 4, 1, 1, 2, pixel_unshuffle=True), CPU, seamless=seamless)
    notes = upscale_image(upscaler, ImageData((pixels(*size, 3),))).notes
    assert notes == ((problem,) if problem else ())


def test_wrapping_can_be_limited_to_one_direction():
    image = pixels(30, 34, 3)
    plain = Upscaler(networks(2), CPU)(image)
    for seamless, axis in (("wrap-x", 1), ("wrap-y", 0)):
        upscaler = Upscaler(networks(2), CPU, seamless=seamless)
        high = upscaler(image)
        np.testing.assert_array_equal(upscaler(np.roll(image, 10, axis)), np.roll(high, 20, axis))
        inner = np.s_[:, 20:-20] if axis else np.s_[20:-20]
        # The other edges are those of the plain image; PyTorch rounds small images in another way.
        np.testing.assert_allclose(high[inner], plain[inner], atol=1)
        assert not np.array_equal(high, plain)


def test_mirrored_image_continues_itself():
    image = pixels(24, 20, 3)
    (network,) = networks(2)
    both = np.pad(image, [(24, 24), (20, 20), (0, 0)], mode="symmetric")
    inner = Upscaler(network, CPU)(both)[48:96, 40:80]
    mirrored = Upscaler(network, CPU, seamless="mirror")(image)
    np.testing.assert_allclose(mirrored, inner, atol=1)  # PyTorch rounds small images in another way


@pytest.mark.parametrize(
    "network",
    [RRDBNet(4, 3, 8, 4, 1, 2, 3), RRDBNet(2, 3, 8, 4, 1, 1, 2, pixel_unshuffle=True), SRVGGNetCompact(2, 3, 8, 2)],
)
def test_nothing_beyond_the_receptive_field_matters(network):
    reach = receptive_field(network)
    low = torch.rand(1, 3, 2 * reach + 8, 8, dtype=torch.float64, requires_grad=True)
    high = network.double()(low)
    row = (reach + 4) * network.scale_factor
    high[:, :, row].sum().backward()
    (rows,) = low.grad.abs().sum((0, 1, 3)).nonzero(as_tuple=True)
    assert reach - 3 * network.unshuffle_factor <= int((rows - reach - 4).abs().max()) <= reach


@pytest.mark.parametrize("method", ["mean", "low"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_color_fix_gives_the_mean_of_the_input(method, dtype):
    (network,) = networks(2)
    with torch.no_grad():
        network.body[-1].bias += torch.tensor([0.05, -0.04, 0.03]).repeat_interleave(4)
    peak = np.iinfo(dtype).max
    image = (pixels(60, 50, 3).astype(np.float64) / 255 * 0.6 * peak + 0.2 * peak).astype(dtype)
    plain, fixed = (Upscaler(network, CPU, color_fix=fix)(image) for fix in (None, method))
    drift = [np.abs(high.mean((0, 1)) - image.mean((0, 1))).max() / peak * 255 for high in (plain, fixed)]
    assert drift[0] > 5
    assert drift[1] < 0.2


def test_color_fix_of_the_low_band_removes_patches():
    (network,) = networks(1)
    with torch.no_grad():
        for weight in network.body[-1].parameters():
            weight.zero_()
    image = np.full((128, 128, 3), 100, np.uint8)

    class Patchy(SRVGGNetCompact):
        def forward(self, low):
            high = super().forward(low)
            high[..., :64] += 0.1
            return high

    patchy = Patchy(1, 3, 8, 1)
    patchy.load_state_dict(network.state_dict())
    from esrgan.inference.color_fix import fix_colors

    low = torch.from_numpy(image / np.float32(255)).permute(2, 0, 1)
    high = patchy(low[None])[0].detach()
    for method, most in (("mean", 13), ("low", 1.5)):
        fixed = high.clone()
        fix_colors(fixed, low, method, (False, False))
        assert (fixed - low).abs()[..., 8:40].max() * 255 < most
    assert (high - low).abs()[..., 8:40].max() * 255 > 25


@pytest.mark.parametrize(("seamless", "shift"), [("wrap", (20, 9)), ("wrap-x", (0, 9)), ("wrap-y", (20, 0))])
def test_fixed_colours_have_no_seam(seamless, shift):
    """Also in textures that are smaller than the filter that separates coarse colours."""
    upscaler = Upscaler(networks(2), CPU, seamless=seamless, color_fix="low")
    image = pixels(40, 18, 3)
    image[:20, :9] //= 2
    shifted = upscaler(np.roll(image, shift, (0, 1))).astype(int)
    expected = np.roll(upscaler(image), (2 * shift[0], 2 * shift[1]), (0, 1))
    assert np.abs(shifted - expected).max() <= 1


def test_color_fix_does_not_change_alpha_and_details():
    (network,) = networks(2)
    image = pixels(30, 40, 4)
    plain, fixed = (Upscaler(network, CPU, color_fix=fix)(image) for fix in (None, "mean"))
    np.testing.assert_array_equal(plain[..., 3], fixed[..., 3])
    data = pixels(30, 40, 6)
    upscalers = [Upscaler(network, CPU, color_fix=fix, transparency="data") for fix in (None, "mean")]
    frames = [upscale_image(each, ImageData((data,), extra_bands=2)).frames[0] for each in upscalers]
    np.testing.assert_array_equal(frames[0][..., 3:], frames[1][..., 3:])
    assert not np.array_equal(frames[0], frames[1])
    inside = (plain[..., 0] > 30) & (plain[..., 0] < 225)
    assert np.ptp(fixed[..., 0][inside].astype(int) - plain[..., 0][inside]) <= 1


def test_tensors_have_no_edges_and_colours():
    for options in ({"seamless": "wrap"}, {"color_fix": "mean"}):
        with pytest.raises(ValueError, match="with seamless or color_fix, got a tensor"):
            Upscaler(networks(2), CPU, **options)(torch.rand(1, 3, 5, 5))


def test_an_empty_model_path_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(inference, tmp_path, "-m", "")
    assert "expected a path, got an empty text" in capsys.readouterr().err


def test_command_scales_the_resolution(tmp_path):
    write_image(tmp_path / "a.png", ImageData((pixels(6, 7, 3),), dpi=(100, 100)))
    model = make_model(tmp_path / "m.pth")
    for dpi, expected in (("keep", 100), ("scale", 200), ("300", 300)):
        assert run(inference, tmp_path / "a.png", "-m", model, "--dpi", dpi, "--overwrite") == 0
        assert read_image(tmp_path / "a_sr.png").dpi == pytest.approx((expected, expected), rel=1e-3)
    for wrong in ("0", "much"):
        with pytest.raises(SystemExit):
            run(inference, tmp_path / "a.png", "--dpi", wrong)


def test_self_ensemble_is_true_or_false():
    with pytest.raises(ValueError, match="self_ensemble: expected True or False, got 'no'"):
        UpscaleOptions(self_ensemble="no")


@pytest.mark.parametrize(
    ("name", "value", "size"),
    [
        ("outscale", np.uint8(3), (300, 600)),
        ("outscale", np.int8(4), (400, 800)),
        ("megapixels", np.float16(4), (1414, 2828)),
        ("width", np.int16(400), (200, 400)),
    ],
)
def test_numbers_of_numpy_do_not_overflow(name, value, size):
    upscaler = Upscaler(networks(2), CPU, **{name: value})
    assert upscaler.output_size(100, 200) == upscaler.output_size(np.uint8(100), np.uint8(200)) == size
