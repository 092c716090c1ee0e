"""Starting a run from a model, a checkpoint, weights of another project, or no file."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from esrgan.config import Config
from esrgan.errors import WeightsError
from esrgan.interpolation import blend
from esrgan.models import Generator
from esrgan.training import TrainOptions
from esrgan.training.setup import make_networks
from esrgan.training.start import StartingPoint, find_start, start_fresh, start_from_file
from esrgan.weights import infer_architecture, load_discriminator, load_file, load_generator, save_file
from tests.helpers.runs import after_step, find_differences, load_run_files, press_ctrl_c, read_records, run
from tests.helpers.weight_files import NcnnWriter, earlier

pytestmark = pytest.mark.usefixtures("foreground_signals")

Make = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def start_files(reference_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return one file of each kind that -l accepts."""
    folder = tmp_path_factory.mktemp("given")
    names = {
        "PSNR model": "PSNR_x4",
        "GAN model": "ESRGAN_x4",
        "PSNR checkpoint": "PSNR_x4_checkpoint",
        "GAN checkpoint": "ESRGAN_x4_checkpoint",
    }
    files = {kind: next(reference_run.glob(f"*_RRDB_{name}.pth")) for kind, name in names.items()}
    state = load_file(files["GAN model"])["params"]
    save_file(folder / "bare.pth", state)
    save_file(folder / "basicsr.pth", {"params_ema": state})
    save_file(
        folder / "blend.pth", blend(*(load_generator(files[k]) for k in ("PSNR model", "GAN model")), 0.5).to_dict()
    )
    return files | {"foreign": folder / "bare.pth", "BasicSR": folder / "basicsr.pth", "blend": folder / "blend.pth"}


GENERATOR = r"RRDBNet ×4 8/4/1"
BOTH, FIRST, SECOND = ("pretraining", "training"), ("pretraining",), ("training",)
RESUMES = "at step 6; resuming from there"


@pytest.mark.parametrize(
    ("kind", "stage", "stages", "description"),
    [
        ("PSNR model", "all", SECOND, f"{GENERATOR}, PSNR stage; the GAN stage starts from it"),
        ("PSNR model", "training", SECOND, f"{GENERATOR}, PSNR stage; the GAN stage starts from it"),
        ("PSNR model", "pretraining", FIRST, f"{GENERATOR}, PSNR stage; the PSNR stage starts from it"),
        ("GAN model", "training", SECOND, f"{GENERATOR}, GAN stage; the GAN stage fine-tunes it"),
        ("GAN model", "pretraining", FIRST, f"{GENERATOR}, GAN stage; the PSNR stage starts from it"),
        ("blend", "training", SECOND, f"{GENERATOR}, interpolated, α = 0.5; the GAN stage fine-tunes it"),
        ("foreign", "all", SECOND, f"{GENERATOR}, BasicSR names, of unknown training; the GAN stage starts from it"),
        (
            "foreign",
            "training",
            SECOND,
            f"{GENERATOR}, BasicSR names, of unknown training; the GAN stage starts from it",
        ),
        (
            "foreign",
            "pretraining",
            FIRST,
            f"{GENERATOR}, BasicSR names, of unknown training; the PSNR stage starts from it",
        ),
        ("BasicSR", "all", SECOND, f"{GENERATOR}, BasicSR names, of unknown training; the GAN stage starts from it"),
        ("PSNR checkpoint", "all", BOTH, f"checkpoint of pretraining {RESUMES}"),
        ("PSNR checkpoint", "pretraining", FIRST, f"checkpoint of pretraining {RESUMES}"),
        (
            "PSNR checkpoint",
            "training",
            SECOND,
            "checkpoint of pretraining at step 6; the GAN stage starts from its averaged generator",
        ),
        ("GAN checkpoint", "all", SECOND, f"checkpoint of training {RESUMES}"),
        ("GAN checkpoint", "training", SECOND, f"checkpoint of training {RESUMES}"),
    ],
)
@pytest.mark.slow
def test_the_starting_point_describes_its_file(
    start_files: dict[str, Path],
    tiny_config: Make,
    kind: str,
    stage: str,
    stages: tuple[str, ...],
    description: str,
) -> None:
    path, content = start_files[kind], load_file(start_files[kind])
    start = start_from_file(path, Config.model_validate(tiny_config()), stage)
    assert start.stages == stages
    assert start.description == f"{path}: {description}"
    assert "\n" not in start.description
    if description.endswith(RESUMES):
        assert start.resume.step == 6
        assert not find_differences(start.generator_weights, content["params"])
        assert not find_differences(start.resume.params_ema, content["params_ema"])
    else:
        assert start.resume is None
        state = content.get("params_ema", content.get("params", content))
        assert not find_differences(start.generator_weights, state)


@pytest.mark.parametrize(
    ("kind", "stage", "message"),
    [
        ("GAN model", "all", "this model has finished GAN training; add --stage training to fine-tune it"),
        ("GAN checkpoint", "pretraining", "a checkpoint of training cannot resume pretraining; use --stage training"),
    ],
)
def test_a_file_unsuitable_for_the_stage_is_an_error(
    start_files: dict[str, Path], tiny_config: Make, tmp_path: Path, kind: str, stage: str, message: str
) -> None:
    with pytest.raises(WeightsError, match=re.escape(message)) as caught:
        run(tiny_config(), tmp_path / "out", stage=stage, load_checkpoint=start_files[kind])
    assert str(start_files[kind]) in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("stage", "stages"), [("all", BOTH), ("pretraining", FIRST), ("training", SECOND)])
def test_without_a_file_the_requested_stages_run(stage: str, stages: tuple[str, ...]) -> None:
    start = start_fresh(stage)
    assert start.stages == stages
    assert start.generator_weights is start.resume is None
    assert start.description.startswith(f"starting {stages[0]}")


def test_gan_stage_without_a_file_warns_of_random_weights(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tiny_config(), tmp_path, stage="training", max_steps=1) is True
    assert load_run_files(tmp_path).keys() == {"ESRGAN_x4", "ESRGAN_x4_best_model", "ESRGAN_x4_checkpoint"}
    assert {record["stage"] for record in read_records(tmp_path)} == {"training"}
    expected = "random weights; for good results the GAN stage needs a pretrained generator (-l)\n"
    assert expected in capsys.readouterr().out


def test_a_gan_model_can_be_fine_tuned(start_files: dict[str, Path], tiny_config: Make, tmp_path: Path) -> None:
    frozen = {"g_lr": 1e-12, "d_lr": 1e-12}
    assert run(
        tiny_config(training=frozen), tmp_path, stage="training", load_checkpoint=start_files["GAN model"], max_steps=1
    )
    trained, before = load_run_files(tmp_path)["ESRGAN_x4"]["params"], load_file(start_files["GAN model"])["params"]
    torch.testing.assert_close(trained, before, rtol=0, atol=1e-9)


def test_a_loaded_checkpoint_continues_under_its_run_name(tiny_config: Make, stop_run: Callable[[str], Path]) -> None:
    out_dir = stop_run("pretraining")
    (checkpoint,) = out_dir.glob("*_checkpoint.pth")
    assert run(tiny_config(), out_dir, stage="pretraining", load_checkpoint=checkpoint, max_steps=3) is True
    assert load_run_files(out_dir).keys() == {"PSNR_x4", "PSNR_x4_best_model", "PSNR_x4_checkpoint"}  # of one run
    records = read_records(out_dir)
    assert [record["step"] for record in records if record["split"] == "train"] == [1, 2, 3]
    assert [record["step"] for record in records if record["split"] == "validation"] == [0, 2, 3]


@pytest.mark.parametrize(
    ("changes", "ours"),
    [
        ({"generator": {"rrdb_channels": 16}}, "RRDBNet ×4 16/4/1"),
        ({"generator": {"num_basic_blocks": 2}}, "RRDBNet ×4 8/4/2"),
        ({"scale_factor": 2, "generator": {"num_basic_blocks": 2}}, "RRDBNet ×2 8/4/2"),
    ],
)
def test_a_file_of_another_architecture_is_an_error(
    start_files: dict[str, Path], tiny_config: Make, tmp_path: Path, changes: dict[str, Any], ours: str
) -> None:
    for kind in ("PSNR model", "PSNR checkpoint"):
        with pytest.raises(WeightsError) as caught:
            run(tiny_config(**changes), tmp_path / "out", load_checkpoint=start_files[kind])
        message = str(caught.value)
        assert str(start_files[kind]) in message
        assert f"expected the generator of the configuration, {ours}, got RRDBNet ×4 8/4/1; set " in message
        assert "\n" not in message
        assert not (tmp_path / "out").exists()


def test_a_different_residual_scaling_is_reported(
    start_files: dict[str, Path], tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = ""
    try:
        run(
            tiny_config(generator={"residual_scaling": 0.5}),
            tmp_path,
            load_checkpoint=start_files["PSNR model"],
            dry_run=True,
        )
    except WeightsError as error:
        message = str(error)
    assert "residual_scaling" in message + capsys.readouterr().out


def test_an_incomplete_checkpoint_is_an_error(start_files: dict[str, Path], tiny_config: Make, tmp_path: Path) -> None:
    config = Config.model_validate(tiny_config())
    content = load_file(start_files["PSNR checkpoint"])
    for key in ("run", "step", "best", "stage"):
        lacking = {name: value for name, value in content["checkpoint"].items() if name != key}
        save_file(tmp_path / "lacking.pth", content | {"checkpoint": lacking})
        with pytest.raises(WeightsError, match=r"lacking\.pth: incomplete checkpoint; save "):
            start_from_file(tmp_path / "lacking.pth", config, "all")


def test_a_missing_file_is_an_error(tiny_config: Make, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nothing\.pth: no such file"):
        run(tiny_config(), tmp_path / "out", load_checkpoint=tmp_path / "nothing.pth")


# Weights of another scale


def start(path: Path, config: dict[str, Any], stage: str = "all") -> StartingPoint:
    return start_from_file(path, Config.model_validate(config), stage)


TRUNK, TAIL = "conv_first, body, conv_body", "conv_hr, conv_last"
FOLDED: dict[str, Any] = {"scale_factor": 2, "generator": {"pixel_unshuffle": True}}


@pytest.mark.parametrize(
    ("changes", "layers"),
    [
        ({"scale_factor": 2}, f"taken: {TRUNK}, conv_up2 as conv_up1, {TAIL}; unused: conv_up1"),
        ({"scale_factor": 1}, f"taken: {TRUNK}, {TAIL}; unused: conv_up1, conv_up2"),
        ({"scale_factor": 8}, f"taken: {TRUNK}, conv_up1, conv_up2, {TAIL}; new: conv_up3"),
        (FOLDED, f"taken: body, conv_body, conv_up1, conv_up2, {TAIL}; adapted: conv_first"),
        ({"img_channels": 1}, "taken: body, conv_body, conv_up1, conv_up2, conv_hr; adapted: conv_first, conv_last"),
        (
            {"img_channels": 4},
            "taken: body, conv_body, conv_up1, conv_up2, conv_hr; new: conv_first, conv_last; "
            "unused: conv_first, conv_last",
        ),
        (
            {"generator": {"use_subpixel_conv": True}},
            f"taken: {TRUNK}, {TAIL}; new: conv_up1, conv_up2; unused: conv_up1, conv_up2",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["PSNR model", "GAN model", "foreign"])
def test_layers_of_another_scale_are_named(
    start_files: dict[str, Path], tiny_config: Make, changes: dict[str, Any], layers: str, kind: str
) -> None:
    given, scale = start(start_files[kind], tiny_config(**changes)), changes.get("scale_factor", 4)
    assert given.stages == BOTH  # what is new has to be learnt before the GAN stage
    assert f"; the PSNR stage starts from it, for RRDBNet ×{scale} 8/4/1" in given.description
    assert given.description.endswith(f"; layers {layers}")


def started(
    tiny_config: Make, folder: Path, theirs: dict[str, Any], ours: dict[str, Any]
) -> tuple[Generator, Generator]:
    """Return a generator of one configuration, and one of another that has started from its file."""
    (before, _), (after, discriminator) = (
        make_networks(Config.model_validate(tiny_config(seed=seed, **changes)), torch.device("cpu"))
        for seed, changes in ((1, theirs), (2, ours))
    )
    save_file(folder / "before.pth", {"params": dict(before.state_dict())})
    start(folder / "before.pth", tiny_config(**ours)).load_into(after, discriminator)
    return before, after


def test_layers_without_a_counterpart_keep_their_initial_weights(tiny_config: Make, tmp_path: Path) -> None:
    before, after = started(tiny_config, tmp_path, {}, {"img_channels": 4})
    fresh, _ = make_networks(Config.model_validate(tiny_config(seed=2, img_channels=4)), torch.device("cpu"))
    for name, value in after.state_dict().items():
        source = fresh if name.startswith(("conv_first", "conv_last")) else before
        assert torch.equal(value, source.state_dict()[name]), name


@pytest.mark.parametrize("is_subpixel", [False, True])
def test_a_new_upsampling_layer_repeats_pixels(tiny_config: Make, tmp_path: Path, is_subpixel: bool) -> None:
    generator = {"use_subpixel_conv": is_subpixel}
    _, after = started(tiny_config, tmp_path, {"generator": generator}, {"scale_factor": 8, "generator": generator})
    features = torch.rand(1, 8, 5, 6)
    repeated = torch.nn.functional.interpolate(features, scale_factor=2, mode="nearest")
    conv = after.get_submodule("conv_up3")
    out = torch.nn.functional.pixel_shuffle(conv(features), 2) if is_subpixel else conv(repeated)
    torch.testing.assert_close(out, repeated)


def test_another_folding_starts_as_the_same_network(tiny_config: Make, tmp_path: Path) -> None:
    image = torch.rand(1, 3, 8, 10)
    before, after = started(tiny_config, tmp_path, {}, FOLDED)
    torch.testing.assert_close(after(image), before(torch.nn.functional.avg_pool2d(image, 2)))
    before, after = started(tiny_config, tmp_path, FOLDED, {})
    torch.testing.assert_close(after(image), before(image.repeat_interleave(2, 2).repeat_interleave(2, 3)))


def test_other_channels_start_as_the_same_network(tiny_config: Make, tmp_path: Path) -> None:
    grey = torch.rand(1, 1, 6, 7)
    before, after = started(tiny_config, tmp_path, {}, {"img_channels": 1})
    torch.testing.assert_close(after(grey), before(grey.expand(-1, 3, -1, -1)).mean(1, keepdim=True))
    before, after = started(tiny_config, tmp_path, {"img_channels": 1}, {})
    torch.testing.assert_close(after(grey.expand(-1, 3, -1, -1)), before(grey).expand(-1, 3, -1, -1))


COMPACT = {"generator": {"type": "compact", "num_feat": 8, "num_conv": 2}}


@pytest.mark.parametrize("scale", [2, 8])
def test_a_compact_network_of_another_scale_starts_as_nearest_neighbour(
    tiny_config: Make, tmp_path: Path, scale: int
) -> None:
    before, after = started(tiny_config, tmp_path, COMPACT, COMPACT | {"scale_factor": scale})
    names = [name for name in after.state_dict() if not name.startswith("body.6.")]
    assert all(torch.equal(after.state_dict()[name], before.state_dict()[name]) for name in names)
    low = torch.rand(1, 3, 5, 6)
    assert torch.equal(after(low), torch.nn.functional.interpolate(low, scale_factor=scale, mode="nearest"))
    description = start(tmp_path / "before.pth", tiny_config(**COMPACT, scale_factor=scale)).description
    assert description.endswith(f", for SRVGGNetCompact ×{scale} 8/2; new layers: body.6")


def test_one_kind_of_network_is_no_start_for_the_other(tiny_config: Make, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r'set generator\.type to "compact", generator\.num_feat to 8'):
        started(tiny_config, tmp_path, COMPACT, {})
    with pytest.raises(WeightsError, match=r'set generator\.type to "rrdb", generator\.rrdb_channels to '):
        started(tiny_config, tmp_path, {}, COMPACT)


def test_the_gan_stage_starts_from_another_scale_if_requested(start_files: dict[str, Path], tiny_config: Make) -> None:
    for kind, use in (("GAN model", "fine-tunes"), ("PSNR model", "starts from"), ("PSNR checkpoint", "starts from")):
        given = start(start_files[kind], tiny_config(scale_factor=2), "training")
        assert (given.stages, given.resume) == (SECOND, None)
        assert f"the GAN stage {use} it" in given.description or "from its averaged generator" in given.description
        assert "; layers taken: " in given.description


def test_grey_images_folded_by_two_are_not_taken_for_four_channels(tiny_config: Make, tmp_path: Path) -> None:
    config = Config.model_validate(tiny_config(img_channels=4))
    generator, _ = make_networks(config, torch.device("cpu"))
    save_file(tmp_path / "rgba.pth", {"params": dict(generator.state_dict())})
    given = start(tmp_path / "rgba.pth", tiny_config(**FOLDED, img_channels=1))
    assert given.generator_weights is not None
    assert "conv_first.weight" not in given.generator_weights


def test_a_checkpoint_of_another_scale_is_not_resumed(start_files: dict[str, Path], tiny_config: Make) -> None:
    remedy = (
        "set scale_factor to 4, or start from a model file (-l), which may have another scale, instead of a checkpoint"
    )
    with pytest.raises(WeightsError, match=re.escape(remedy)):
        start(start_files["PSNR checkpoint"], tiny_config(scale_factor=2))


@pytest.mark.parametrize("scale", [2, 8])
@pytest.mark.slow
def test_training_at_another_scale_learns_faster_than_from_random(
    tiny_config: Make, tmp_path: Path, scale: int
) -> None:
    config = tiny_config(
        scale_factor=scale,
        generator={"rrdb_channels": 64, "growth_channels": 32, "num_basic_blocks": 6, "small_init": "all"},
        pretraining={"lr": 2e-4},
        validation_interval=1000,
        logging={"interval": 1},
    )
    losses = {}
    for name, file in (("random", None), ("taken", Path("esrgan-lite-psnr"))):
        run(config, tmp_path / name, stage="pretraining", load_checkpoint=file, max_steps=25)
        losses[name] = [record["content_loss"] for record in read_records(tmp_path / name) if "content_loss" in record]
    assert sum(losses["taken"][-5:]) < 0.8 * sum(losses["random"][-5:])


# Files of the earlier framework


def save_earlier(path: Path, tiny_config: Make, **content: Any) -> StartingPoint:
    """Write a file of the earlier framework, whose optimisers may hold anything, and start from it."""
    config = tiny_config()
    for section, epochs in (("pretraining", 12), ("training", 8)):
        config[section] |= {"num_epoch": epochs, "num_steps": None}
    generator, discriminator = make_networks(Config.model_validate(config), torch.device("cpu"))
    architecture = infer_architecture(dict(generator.state_dict()))
    networks = {"g": earlier(dict(generator.state_dict()), architecture), "d": dict(discriminator.state_dict())}
    content = {key: networks[value] if value in ("g", "d") else value for key, value in content.items()}
    torch.save(content | {"hparams": {key: config[key] for key in ("pretraining", "training")}}, path)
    return start(path, config)


PSNR = {"model_state_dict": "g", "optimizer_state_dict": {}, "scheduler_state_dict": {}}
GAN = {"g_model_state_dict": "g", "d_model_state_dict": "d", "g_optimizer_state_dict": {}, "d_optimizer_state_dict": {}}


@pytest.mark.parametrize(
    ("content", "stages", "text"),
    [
        (
            PSNR | {"stage": "pre-training", "epoch_i": 5},
            BOTH,
            "PSNR stage; the PSNR stage continues after epoch 5 with its generator, counts its steps from 0 and starts "
            "new optimisers; to train what remains, set pretraining.num_epoch to 7",
        ),
        (PSNR | {"epoch_i": 5}, BOTH, "PSNR stage; the PSNR stage continues after epoch 5 with its generator"),
        (PSNR | {"stage": "pre-training", "epoch_i": 12}, SECOND, "PSNR stage; the GAN stage starts from it"),
        ({"model_state_dict": "g", "stage": "pre-training"}, SECOND, "PSNR stage; the GAN stage starts from it"),
        ({"model_state_dict": "g", "stage": "pre-training", "epoch_i": 5}, SECOND, "the GAN stage starts from it"),
        ({"model_state_dict": "g"}, SECOND, "of unknown training; the GAN stage starts from it"),
        (
            {"model_state_dict": "g", "stage": "interpolation", "alpha": 0.5},
            SECOND,
            "interpolated, α = 0.5; the GAN stage starts from it",
        ),
        (
            GAN | {"stage": "training", "epoch_i": 3},
            SECOND,
            "GAN stage; the GAN stage continues after epoch 3 with its generator and discriminator, counts its steps "
            "from 0 and starts new optimisers; to train what remains, set training.num_epoch to 5",
        ),
        (GAN | {"epoch_i": 3}, SECOND, "the GAN stage continues after epoch 3 with its generator and discriminator,"),
        (
            GAN | {"d_model_state_dict": {}, "epoch_i": 3},
            SECOND,
            "and a new discriminator, because its own does not fit",
        ),
    ],
)
def test_unfinished_stages_of_the_earlier_framework_continue(
    tiny_config: Make, tmp_path: Path, content: dict[str, Any], stages: tuple[str, ...], text: str
) -> None:
    given = save_earlier(tmp_path / "earlier.pth", tiny_config, **content)
    assert given.stages == stages
    assert text in given.description
    assert given.resume is None
    assert (given.discriminator_weights is not None) == ("generator and discriminator" in text)


@pytest.mark.parametrize("content", [GAN | {"epoch_i": 8}, {"model_state_dict": "g", "stage": "training"}])
def test_a_finished_gan_stage_of_the_earlier_framework_is_not_repeated(
    tiny_config: Make, tmp_path: Path, content: dict[str, Any]
) -> None:
    with pytest.raises(WeightsError, match="this model has finished GAN training; add --stage training"):
        save_earlier(tmp_path / "earlier.pth", tiny_config, **content)


# Discriminators


@pytest.fixture(scope="module")
def net_d(tiny_config: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a discriminator of the configuration, with other weights than its seed gives."""
    _, discriminator = make_networks(Config.model_validate(tiny_config(seed=77)), torch.device("cpu"))
    path = tmp_path_factory.mktemp("discriminator") / "net_d.pth"
    torch.save({"params": dict(discriminator.state_dict())}, path)
    return path


@pytest.mark.parametrize("stage", ["training", "all"])
def test_the_gan_stage_starts_from_a_discriminator_file(
    tiny_config: Make, net_d: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    config = tiny_config(training={"d_lr": 1e-12})
    assert run(config, tmp_path, stage=stage, load_discriminator=net_d, max_steps=1, run_name="r") is True
    assert f"; {net_d} for the discriminator\n" in capsys.readouterr().out
    trained = load_run_files(tmp_path)["ESRGAN_x4_checkpoint"]["checkpoint"]["stage"]["discriminator"]
    _, given = load_discriminator(net_d)
    for name, value in given.items():
        if not name.rpartition(".")[2].startswith(("running", "num_batches")):
            torch.testing.assert_close(trained[name], value, rtol=0, atol=1e-9)


def test_our_checkpoint_gives_its_discriminator(start_files: dict[str, Path], tiny_config: Make) -> None:
    files = {"load_checkpoint": start_files["PSNR model"], "load_discriminator": start_files["GAN checkpoint"]}
    given = find_start(Config.model_validate(tiny_config()), TrainOptions(**files, stage="training"))
    expected = load_file(start_files["GAN checkpoint"])["checkpoint"]["stage"]["discriminator"]
    assert not find_differences(given.discriminator_weights, expected)


def test_a_resumed_gan_stage_keeps_its_discriminator(start_files: dict[str, Path], tiny_config: Make) -> None:
    config, gone = Config.model_validate(tiny_config()), Path("gone.pth")
    options = TrainOptions(load_checkpoint=start_files["GAN checkpoint"], load_discriminator=gone)
    given = find_start(config, options)
    assert given.description.endswith(f"{RESUMES}; its discriminator replaces {gone}")
    assert given.discriminator_weights is None
    with pytest.raises(WeightsError, match=r"gone\.pth: no such file"):  # the GAN stage is still to come
        find_start(config, replace(options, load_checkpoint=start_files["PSNR checkpoint"]))


def test_a_discriminator_that_does_not_fit_is_refused(
    tiny_config: Make, net_d: Path, start_files: dict[str, Path], tmp_path: Path
) -> None:
    unet = tiny_config(discriminator={"type": "unet", "num_features": 4})
    for config, stage, file, expected in (
        (
            unet,
            "all",
            net_d,
            'expected the discriminator of the configuration, "discriminator": {"type": "unet", "num_features": 4}, '
            'got "discriminator": {"type": "vgg", "vgg_blk_ch": [4, 4, 8, 8], "fc_features": [10]}; change the '
            "configuration to match the file",
        ),
        (tiny_config(), "pretraining", net_d, "--load-discriminator is for the GAN stage, which --stage pretraining"),
        (tiny_config(training={"g_adversarial_loss_scaling": 0}), "training", net_d, "needs an adversarial loss"),
        (tiny_config(), "all", start_files["PSNR model"], "got an ESRGAN generator; pass it with -l"),
    ):
        with pytest.raises(WeightsError, match=re.escape(f"{file}: ") + ".*" + re.escape(expected)):
            run(config, tmp_path / "out", stage=stage, load_discriminator=file)
        assert not (tmp_path / "out").exists()


# Other formats, and files that are gone


@pytest.mark.parametrize("kind", ["fp16", "safetensors", "EMA only", "EMA and params", "ncnn"])
def test_formats_of_weights_do_not_matter(
    start_files: dict[str, Path], tiny_config: Make, tmp_path: Path, kind: str
) -> None:
    state = {name: value.half().float() for name, value in load_file(start_files["PSNR model"])["params"].items()}
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth")
    if kind == "ncnn":
        writer = NcnnWriter(state, infer_architecture(state))
        path, _ = writer.write(tmp_path / "a")
    elif kind.startswith("EMA"):
        raw = {} if kind == "EMA only" else {"params": {name: value + 1 for name, value in state.items()}}
        save_file(path, raw | {"params_ema": state})
    else:
        save_file(path, {"params": {k: v.half() for k, v in state.items()} if kind == "fp16" else state})
    for scale in (4, 2):
        given = start(path, tiny_config(scale_factor=scale), "pretraining").generator_weights
        assert given is not None
        assert given.keys() == ({k for k in state if scale == 4 or not k.startswith("conv_up2")})
        expected = state | ({name: state[name.replace("up1", "up2")] for name in given} if scale == 2 else {})
        torch.testing.assert_close(given, {name: expected[name] for name in given}, rtol=0, atol=0)


def test_a_resumed_run_does_not_need_the_file_it_started_from(
    tiny_config: Make, start_files: dict[str, Path], tmp_path: Path
) -> None:
    given = tmp_path / "given.pth"
    given.write_bytes(start_files["PSNR model"].read_bytes())
    with after_step("training", 2, press_ctrl_c):
        assert run(tiny_config(), tmp_path / "out", load_checkpoint=given) is False
    given.unlink()
    assert run(tiny_config(), tmp_path / "out", load_checkpoint=given, resume=True, max_steps=3) is True


def test_a_named_model_is_described_by_its_name() -> None:
    config = Config.model_validate({"generator": {"num_basic_blocks": 6}})
    start = start_from_file(Path("esrgan-lite-psnr"), config, "pretraining")
    assert start.description.startswith("esrgan-lite-psnr: RRDBNet")
