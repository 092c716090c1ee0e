"""Every dialect and container of the ESRGAN family loads as the same network."""

import pytest
import safetensors.torch
import spandrel
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esrgan.errors import WeightsError
from esrgan.interpolation import blend
from esrgan.weights import RRDBNetArchitecture, load_generator, save_file, to_basicsr_names
from tests.helpers.weight_files import DIALECT_WRITERS, NcnnWriter, earlier, esrgan_new, esrgan_old, random_state

TINY = {"rrdb_channels": 4, "growth_channels": 2, "num_basic_blocks": 2, "num_dense_blocks": 3}
TINY |= {"num_residual_blocks": 3, "img_channels": 3, "use_subpixel_conv": False, "pixel_unshuffle": False}


def tiny_architecture(**changes):
    return RRDBNetArchitecture(**{**TINY, "scale_factor": 4, **changes})


ARCHITECTURES = st.builds(
    RRDBNetArchitecture,
    scale_factor=st.sampled_from([1, 2, 4, 8]),
    img_channels=st.sampled_from([1, 3, 4]),
    rrdb_channels=st.integers(1, 5),
    growth_channels=st.integers(1, 4),
    num_basic_blocks=st.integers(1, 3),
    num_dense_blocks=st.integers(1, 3),
    num_residual_blocks=st.integers(2, 4),
    use_subpixel_conv=st.booleans(),
    pixel_unshuffle=st.booleans(),
    residual_scaling=st.sampled_from([0.2, 0.1, 0.35, 1.5]),
).filter(lambda a: not (a.pixel_unshuffle and a.scale_factor > 2))


def output(network, channels):
    low = torch.rand(1, channels, 5, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return network(low)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ARCHITECTURES, st.booleans(), st.booleans(), st.sampled_from([".pth", ".safetensors"]))
@pytest.mark.slow
def test_every_dialect_gives_bit_identical_output(tmp_path, architecture, fused, half, suffix):
    state = random_state(architecture)
    original = architecture.build().eval()
    original.load_state_dict(state)
    expected = output(original, architecture.img_channels)
    # A dialect that cannot store β stores it in the configuration.
    hparams = {"generator": {"residual_scaling": architecture.residual_scaling}}
    files = {}
    for dialect, write in DIALECT_WRITERS.items():
        path = tmp_path / f"{dialect}{suffix}"
        save_file(path, {"params": write(state, architecture), "hparams": hparams})
        files[dialect.partition(" (")[0] + path.name] = load_generator(path)
    pair = NcnnWriter(state, architecture, fused, half).write(tmp_path / "network")
    files |= {f"ncnn{path.name}": load_generator(path) for path in (*pair, tmp_path / "network")}
    for name, file in files.items():
        assert name.startswith(file.dialect)
        assert torch.equal(output(file.build(), architecture.img_channels), expected), name
        expected_fields = vars(architecture) | (
            {"use_subpixel_conv": False} if architecture.scale_factor == 1 and not architecture.pixel_unshuffle else {}
        )
        assert vars(file.architecture) == expected_fields, name


@pytest.mark.parametrize(
    ("scale", "subpixel", "numbers"),
    [
        (1, False, [0, 1, 2, 4]),
        (2, False, [0, 1, 3, 5, 7]),
        (4, False, [0, 1, 3, 6, 8, 10]),
        (8, False, [0, 1, 3, 6, 9, 11, 13]),
        (2, True, [0, 1, 2, 5, 7]),
        (4, True, [0, 1, 2, 5, 8, 10]),
        (8, True, [0, 1, 2, 5, 8, 11, 13]),
    ],
)
def test_old_names_are_numbered_as_in_published_files(scale, subpixel, numbers):
    architecture = tiny_architecture(scale_factor=scale, use_subpixel_conv=subpixel)
    old = esrgan_old(random_state(architecture), architecture)
    assert sorted({int(name.split(".")[1]) for name in old}) == numbers
    assert "model.1.sub.0.RDB1.conv1.0.weight" in old
    assert "model.1.sub.2.bias" in old


@pytest.mark.parametrize("beta", [0.2, 0.1, 0.35, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.slow
def test_residual_scaling_is_read_from_the_file(tmp_path, beta, dtype):
    architecture = tiny_architecture(residual_scaling=beta)
    state = earlier(random_state(architecture), architecture)
    path = tmp_path / "a.pth"
    torch.save({name: value.to(dtype) for name, value in state.items()}, path)
    assert load_generator(path).architecture == architecture


def test_stored_residual_scaling_overrides_the_configuration(tmp_path):
    architecture = tiny_architecture(residual_scaling=0.35)
    path = tmp_path / "a.pth"
    hparams = {"generator": {"residual_scaling": 0.1}}
    save_file(path, {"params": earlier(random_state(architecture), architecture), "hparams": hparams})
    assert load_generator(path).architecture.residual_scaling == 0.35


def test_residual_scaling_defaults_to_the_papers(tmp_path):
    architecture = tiny_architecture()
    path = tmp_path / "a.pth"
    torch.save(earlier(random_state(architecture), architecture, scalars=False), path)
    assert load_generator(path).architecture.residual_scaling == 0.2


def test_describe_names_the_dialect(tmp_path):
    architecture = tiny_architecture()
    state = random_state(architecture)
    path = tmp_path / "a.pth"
    for write, words in (
        (esrgan_old, "ESRGAN old names"),
        (esrgan_new, "ESRGAN new names"),
        (earlier, "names of the earlier framework"),
    ):
        torch.save(write(state, architecture), path)
        file = load_generator(path)
        assert file.dialect == words
        assert file.describe() == f"{architecture}, {words}, of unknown training"
        torch.save({"model_state_dict": write(state, architecture), "stage": "training"}, path)
        assert load_generator(path).describe() == f"{architecture}, {words}, GAN stage"
    save_file(path, {"params": state, "stage": "training"})
    assert load_generator(path).describe() == f"{architecture}, GAN stage"
    NcnnWriter(state, architecture).write(tmp_path / "b")
    assert load_generator(tmp_path / "b.bin").describe() == f"{architecture}, ncnn, of unknown training"


# Containers


@pytest.mark.parametrize("dialect", DIALECT_WRITERS)
@pytest.mark.parametrize("prefix", ["module.", "netG.", "generator.", "model.", "module._orig_mod.", "net.G."])
@pytest.mark.slow
def test_wrapper_prefixes_are_stripped_and_other_networks_ignored(tmp_path, dialect, prefix):
    architecture = tiny_architecture()
    state = random_state(architecture)
    content = {f"{prefix}{name}": value for name, value in DIALECT_WRITERS[dialect](state, architecture).items()}
    others = {"discriminator.conv0.weight": torch.zeros(1), "loss.vgg.features.0.weight": torch.zeros(2).int()}
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {**others, **content}, "pytorch-lightning_version": "2.0"}, path)
    file = load_generator(path)
    assert file.state.keys() == state.keys()
    assert all(torch.equal(file.state[name], state[name]) for name in state)


def test_averaged_weights_are_preferred(tmp_path):
    architecture = tiny_architecture()
    raw, averaged = random_state(architecture, 0), random_state(architecture, 1)
    path = tmp_path / "a.ckpt"
    both = {f"net_g.{name}": value for name, value in raw.items()}
    both |= {f"net_g_ema.{name}": value for name, value in averaged.items()}
    torch.save(both, path)
    assert torch.equal(load_generator(path).state["conv_first.weight"], averaged["conv_first.weight"])


@pytest.mark.parametrize("name", ["before_ema", "cinema_net", "schema", "net_no_ema"])
def test_only_averaged_weights_of_the_same_network_are_preferred(tmp_path, name):
    raw, averaged = random_state(tiny_architecture(), 0), random_state(tiny_architecture(), 1)
    path = tmp_path / "a.pth"

    def load(**networks):
        torch.save({f"{key}.{name}": value for key, each in networks.items() for name, value in each.items()}, path)
        return load_generator(path).state["conv_first.weight"]

    assert torch.equal(load(**{name: raw, "net_ema": averaged}), averaged["conv_first.weight"])
    with pytest.raises(WeightsError, match="expected one generator, got 2"):
        load(**{name: raw, "netG": averaged})
    other = random_state(tiny_architecture(rrdb_channels=8))
    assert torch.equal(load(netG=raw, teacher_ema=other), raw["conv_first.weight"])
    assert torch.equal(load(teacher_ema=other), other["conv_first.weight"])
    assert torch.equal(load(**{name: raw, "net_ema": averaged, "teacher_ema": other}), averaged["conv_first.weight"])
    assert torch.equal(load(model=raw, modelema=averaged), averaged["conv_first.weight"])
    with pytest.raises(WeightsError, match="unknown tensors: 1"):  # the raw ones are not taken instead
        load(**{name: raw, "net_ema": averaged | {"stats.n": torch.zeros(1)}})


def layers(**shapes):
    """Return convolutions by name; the values are (outputs, inputs)."""
    weights = {f"{name}.weight": torch.ones(*shape, 3, 3) for name, shape in shapes.items()}
    return weights | {f"{name}.bias": torch.ones(shape[0]) for name, shape in shapes.items()}


SMALL = layers(**{"res.body.0": (3, 3), "res.body.2": (12, 3)})
EDSR_BLOCKS = [{f"body.{i}.body.0": (8, 8), f"body.{i}.body.2": (8, 8)} for i in range(2)]
EDSR_ENDS = {"head.0": (8, 3), "tail.0.0": (32, 8), "tail.1": (3, 8)}
GENERATOR = {f"RRDB.{name}": value for name, value in random_state(tiny_architecture()).items()}
COMPACT = {f"net.{name[4:]}": value for name, value in SMALL.items()}


SILENT, NAMED, REFUSED = "silent", "named", "refused"
PARTS = {  # what a file with model.* and these parts gives
    SILENT: (
        *(
            "netD",
            "netD1",
            "netD_A",
            "netD_B",
            "net_d",
            "net_d2",
            "net_d_ema",
            "critD",
            "D",
            "D_A",
            "D_B",
            "dnet",
            "d_net",
        ),
        *("discriminator", "discriminator_unet", "unet_discriminator", "patch_discriminator", "patchgan", "patch_d"),
        *("critic", "netF", "netE", "vgg", "VGG", "vgg19", "vgg19_54", "style_vgg", "vggloss", "per", "lossNetwork"),
        *("loss", "loss_fn", "loss_fn_vgg", "perceptual_loss_fn", "loss_weights", "content_loss", "resnet_loss"),
        *("gan_loss", "ganLoss", "dino_loss", "adversarial_loss", "criterion", "criterionGAN", "contentCriterion"),
        *("cri_pix", "cri_perceptual", "cri_gan", "lpips", "val_lpips", "LPIPS", "fid", "metrics", "test_metrics"),
        *("topiq", "clip_score", "niqe", "optimizer"),
        *("l_pix", "l_g_pix", "psnr", "ssim", "ms_ssim", "msssim", "val_psnr", "netDA", "charbonnier", "mse"),
    ),
    NAMED: (
        *("d1", "d2", "D1", "gan", "dino", "dinov2", "gan_fusion", "vgg_fusion", "features", "inception"),
        *("feature_extractor", "feat_extractor", "feature_net", "degradation", "sobel", "jpeger", "loss_fn_alex"),
        *("optimizer_g", "net_d_iter", "clip_model", "usm", "extractor", "diffaug", "diff_aug"),
    ),
    REFUSED: (
        *("feature_fusion", "feature_extraction", "context_net", "contextual_attention", "style_mlp", "content_head"),
        *("degradation_encoder", "identity_branch", "resnet_tail", "clip_adapter", "e", "f", "advanced", "kidney"),
        *("fidelity", "eclipse", "discretize", "glossy", "performer", "dense", "flow", "decoder"),
        *("u1", "score", "fn", "organ", "unet", "level_d1", "l_feature", "net_data", "usm_fusion", "pulse"),
    ),
}


@pytest.mark.parametrize(("part", "outcome"), [(part, outcome) for outcome, each in PARTS.items() for part in each])
def test_parts_beside_a_generator_are_judged_by_their_names(part, outcome, capsys):
    for wrapper in ("", "module.", "networks."):
        others = layers(**{f"{wrapper}{part}.0": (3, 3)})
        for prefix in (f"{wrapper}model.", f"{wrapper}netG."):
            state = {f"{prefix}{name[5:]}": value for name, value in GENERATOR.items()} | others
            if outcome == REFUSED and prefix.endswith("model."):
                outside = f"{wrapper}{part}.0.weight is outside its part {prefix}"
                with pytest.raises(WeightsError, match=f"a larger network: {outside}"):
                    to_basicsr_names(state, "a.pth")
                continue
            assert len(to_basicsr_names(state, "a.pth")[0]) == len(GENERATOR)
            line = f"a.pth: using {prefix}*; ignoring {wrapper}{part}.*, which looks like another network\n"
            assert capsys.readouterr().err == ("" if outcome == SILENT else line)


@pytest.mark.parametrize("prefix", ["netG", "g", "gen", "generator", "params", "netG.module"])
def test_unknown_parts_beside_a_named_generator_are_logged(tmp_path, capsys, prefix):
    raw = random_state(tiny_architecture())
    names = [*("flow.0", "flow.1", "style.net.0", "vgg.0"), *(f"extra.{i}" for i in range(2))]
    names += ["features.0", "sobel", "head.0", "tail.0"]
    both = (prefix, f"ema.{prefix}")
    state = {f"{each}.{name}": raw[name] for each in both for name in raw}
    torch.save(state | layers(**dict.fromkeys(names, (3, 3))), tmp_path / "a.pth")
    assert torch.equal(load_generator(tmp_path / "a.pth").state["conv_first.weight"], raw["conv_first.weight"])
    listed = "flow.*, style.*, extra.*, features.*, sobel.* and 2 more"
    line = f"using ema.{prefix}.*; ignoring {listed}, which look like other networks\n"
    assert capsys.readouterr().err == f"{tmp_path / 'a.pth'}: {line}"


@pytest.mark.parametrize(
    ("generators", "companion"),
    [
        (["generator", "ema.module.generator"], ["discriminator", "ema.module.discriminator"]),
        (["net_g", "net_g_ema"], ["net_d", "net_d_ema"]),
        (["nets.generator"], ["nets.discriminator", "nets.vgg"]),
        (["_forward_module.net"], ["_forward_module.criterion", "_forward_module.loss_fn.vgg"]),
    ],
)
def test_companions_under_the_wrappers_of_a_generator_are_ignored(generators, companion, capsys):
    raw = random_state(tiny_architecture())
    state = {f"{prefix}.{name}": value for prefix in generators for name, value in raw.items()}
    state |= layers(**{f"{prefix}.0": (3, 3) for prefix in companion})
    assert to_basicsr_names(state, "a.pth")[0].keys() == raw.keys()
    assert not capsys.readouterr().err


@pytest.mark.parametrize(("wrapper", "part"), [("ema.", "flow"), ("", "ema_attention")])
def test_parts_are_not_accepted_because_they_seem_averaged(wrapper, part):
    state = {f"{wrapper}{name}": value for name, value in GENERATOR.items()} | layers(**{f"{wrapper}{part}.0": (3, 3)})
    with pytest.raises(WeightsError, match=f"a larger network: {wrapper}{part}.0.weight is outside its part"):
        to_basicsr_names(state, "a.pth")


def test_the_averaged_weights_of_the_only_named_generator_are_used(capsys):
    small, averaged = (random_state(tiny_architecture(), seed) for seed in (0, 1))
    networks = {
        "generator": small,
        "generator_ema": averaged,
        "teacher": random_state(tiny_architecture(rrdb_channels=8)),
    }
    state = {f"{prefix}.{name}": value for prefix, each in networks.items() for name, value in each.items()}
    assert torch.equal(to_basicsr_names(state, "a.pth")[0]["conv_first.weight"], averaged["conv_first.weight"])
    line = "a.pth: using generator_ema.*; ignoring teacher.*, which looks like another network\n"
    assert capsys.readouterr().err == line


WIDE = random_state(tiny_architecture(rrdb_channels=8))
RAW, MEAN, OTHER = (random_state(tiny_architecture(), seed) for seed in range(3))
MEANS_OF_OTHERS = {  # what is chosen, or None if the file is refused, and networks by prefix
    "wide teacher": (None, {"generator": RAW, "degrader": WIDE, "pretrained_ema": OTHER}),
    "flat partner": (None, {"net_g": RAW, "net_psnr": OTHER, "net_psnr_ema": MEAN}),
    "flat teacher": (None, {"net": RAW, "net_ema": MEAN, "teacher": OTHER}),
    "other teacher": (MEAN, {"net_g": RAW, "net_g_ema": MEAN, "teacher": OTHER, "teacher_ema": OTHER}),
    "teacher only": (RAW, {"generator": RAW, "teacher_ema": OTHER}),
    "generator later": (MEAN, {"generator": RAW, "callbacks.EMACallback.state_dict.generator": MEAN}),
    "online": (MEAN, {"generator": RAW, "ema.online_model": RAW, "ema.ema_model": MEAN}),
    "online below": (MEAN, {"generator": RAW, "generator_ema.online_model": RAW, "generator_ema.ema_model": MEAN}),
    "online of a model": (MEAN, {"model": RAW, "ema.online_model": RAW, "ema.ema_model": MEAN}),
}


@pytest.mark.parametrize("case", MEANS_OF_OTHERS)
def test_averaged_weights_of_other_networks_are_not_used(tmp_path, case):
    expected, networks = MEANS_OF_OTHERS[case]
    state = {f"{prefix}.{name}": value for prefix, each in networks.items() for name, value in each.items()}
    for content in (state, {"state_dict": state}):
        torch.save(content, tmp_path / "a.pth")
        if expected is None:
            with pytest.raises(WeightsError, match="expected one generator, got 2"):
                load_generator(tmp_path / "a.pth")
        else:
            chosen = load_generator(tmp_path / "a.pth").state
            assert torch.equal(chosen["conv_first.weight"], expected["conv_first.weight"])


def test_raw_weights_used_instead_of_averaged_ones_are_logged(capsys):
    raw = {f"model.{name}": value for name, value in random_state(tiny_architecture()).items()}
    wide = random_state(tiny_architecture(rrdb_channels=8))
    mean = {f"model_ema.{name}": value for name, value in wide.items()}
    without_dots = {f"model_ema.{name[6:].replace('.', '')}": value for name, value in raw.items()}
    underscores = {f"ema_{name.replace('.', '_')}": value for name, value in raw.items()}
    reasons = {
        "model_ema.* is incomplete or of another network": mean,
        "the names model_ema.* have no dots between layers": without_dots,
        "the names ema_model_* have no dots between layers": underscores,
    }
    for reason, averaged in reasons.items():
        found = to_basicsr_names(raw | averaged, "a.pth")[0]
        assert torch.equal(found["conv_first.weight"], raw["model.conv_first.weight"])
        line = f"a.pth: using the raw weights instead of averaged ones, because {reason}\n"
        assert capsys.readouterr().err == line


def test_averaged_weights_are_preferred_only_if_every_network_has_them(tmp_path):
    small = random_state(tiny_architecture())
    large, averaged = (random_state(tiny_architecture(rrdb_channels=8), seed) for seed in (0, 1))

    def load(*, nested, **networks):
        flat = {f"{key}.{name}": value for key, each in networks.items() for name, value in each.items()}
        torch.save(networks if nested else flat, tmp_path / "a.pth")
        return load_generator(tmp_path / "a.pth").state["conv_first.weight"]

    for nested in (False, True):
        with pytest.raises(WeightsError, match="expected one generator, got 2"):
            load(nested=nested, student=small, netT=large, netT_ema=averaged)
        assert torch.equal(load(nested=nested, netT=large, netT_ema=averaged), averaged["conv_first.weight"])
        assert torch.equal(load(nested=nested, netT=small, netT_ema=averaged), small["conv_first.weight"])
        assert torch.equal(load(nested=nested, netT_ema=averaged), averaged["conv_first.weight"])
        found = load(nested=nested, netT=large, other_ema=small, netT_ema=averaged)
        assert torch.equal(found, averaged["conv_first.weight"])


def test_wrapped_and_plain_names_of_one_file_are_two_networks(tmp_path):
    raw = random_state(tiny_architecture())
    wrapped = {f"_orig_mod.{name}": value for name, value in random_state(tiny_architecture(), 1).items()}
    torch.save(raw | wrapped, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="expected one generator, got 2"):
        load_generator(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (GENERATOR | layers(**{"discretize.0": (3, 3), "up.d.0": (3, 3), "glossy.0": (3, 3)}), "a larger network"),
        (
            GENERATOR | layers(**{"flowUpsamplerNet.layers.0": (3, 3)}),
            r"a larger network: flow.* is outside its part RR",
        ),
        (COMPACT | layers(**{"post.0": (3, 3)}), r"a larger network: post.0.weight is outside its part net\."),
        (SMALL | layers(head=(8, 3), tail=(3, 8)), "a larger network: head.weight"),
        (COMPACT | {"post.gamma": torch.ones(8)}, r"a larger network: post.gamma is outside its part net\."),
        (layers(**EDSR_ENDS, **EDSR_BLOCKS[0]), "got EDSR; only"),
        (layers(**EDSR_ENDS, **EDSR_BLOCKS[0], **EDSR_BLOCKS[1]), "got EDSR; only"),
        (
            layers(**{f"encoder.{i}.body.{j}": (3, 3) for i in range(2) for j in (0, 2)}, tail=(3, 3)),
            "a larger network",
        ),
    ],
)
def test_a_part_of_a_larger_network_is_not_taken_for_a_generator(tmp_path, state, message):
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=message):
        load_generator(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "name", ["netD.conv0", "net_d.conv0", "D.conv0", "perceptual_loss.vgg.0", "cri_pix.0", "lpips.lin"]
)
def test_what_trainers_save_with_a_generator_is_ignored(tmp_path, name):
    for network in (GENERATOR, COMPACT):
        settings = {"usm.kernel": torch.ones(9), "average.beta": torch.tensor(0.999)}
        torch.save({**network, **layers(**{name: (3, 3)}), **settings}, tmp_path / "a.pth")
        assert len(load_generator(tmp_path / "a.pth").state) == len(network)


@pytest.mark.parametrize("key", ["generator", "netG", "net_g", "model", "params_ema"])
def test_nested_state_dicts_are_found(tmp_path, key):
    architecture = tiny_architecture()
    path = tmp_path / "a.pt"
    torch.save({"state_dict": {key: random_state(architecture)}, "epoch": 3}, path)
    assert load_generator(path).architecture == architecture


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read_as_float32(tmp_path, dtype):
    architecture = tiny_architecture()
    state = {name: value.to(dtype) for name, value in random_state(architecture).items()}
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(state, path)
    read = load_generator(path).state
    assert all(torch.equal(read[name], state[name].float()) for name in state)
    assert all(value.dtype == torch.float32 for value in read.values())


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.bin", "a.ckpt", "a", "a.onnx", "a.param"])
@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
@pytest.mark.slow
def test_container_is_detected_by_content_not_name(tmp_path, name, kind):
    architecture = tiny_architecture()
    state, path = random_state(architecture), tmp_path / name
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    assert load_generator(path).architecture == architecture


def test_tensors_are_loaded_without_gradients(tmp_path):
    architecture = tiny_architecture()
    path = tmp_path / "a.pth"
    torch.save({name: torch.nn.Parameter(v) for name, v in random_state(architecture).items()}, path)
    assert not any(value.requires_grad for value in load_generator(path).state.values())


# Interpolation


@pytest.mark.parametrize("dialect", DIALECT_WRITERS)
def test_generators_of_two_dialects_are_blended(tmp_path, dialect):
    architecture = tiny_architecture()
    psnr, gan = random_state(architecture, 0), random_state(architecture, 1)
    torch.save(DIALECT_WRITERS[dialect](psnr, architecture), tmp_path / "psnr.pth")
    NcnnWriter(gan, architecture).write(tmp_path / "gan")
    content = blend(load_generator(tmp_path / "psnr.pth"), load_generator(tmp_path / "gan"), 0.25).to_dict()
    for name, value in content["params"].items():
        assert torch.equal(value, 0.75 * psnr[name] + 0.25 * gan[name])
    save_file(tmp_path / "blend.pth", content)
    assert load_generator(tmp_path / "blend.pth").architecture == architecture


# Incomplete and contradictory names


@pytest.mark.parametrize("dialect", DIALECT_WRITERS)
@pytest.mark.slow
def test_each_missing_tensor_is_detected_in_every_dialect(tmp_path, dialect):
    architecture = tiny_architecture(num_basic_blocks=1, num_dense_blocks=2)
    state = DIALECT_WRITERS[dialect](random_state(architecture), architecture)
    for missing in state:
        if not missing.endswith("residual_scaling"):
            with pytest.raises(WeightsError):
                parse({name: value for name, value in state.items() if name != missing}, tmp_path)


@pytest.mark.parametrize("dialect", DIALECT_WRITERS)
def test_each_missing_block_is_detected_in_every_dialect(tmp_path, dialect):
    architecture = tiny_architecture(num_basic_blocks=3)
    state = DIALECT_WRITERS[dialect](random_state(architecture), architecture)
    for i in range(3 if "old" in dialect else 2):  # only the old names show that the last block is missing
        block = (f"body.{i}.", f"RRDB_trunk.{i}.", f"model.1.sub.{i}.RDB", f"rrdb_blocks.rrdb_{i}.")
        with pytest.raises(WeightsError, match="damaged"):
            parse({name: value for name, value in state.items() if not name.startswith(block)}, tmp_path)


def parse(state, tmp_path):
    path = tmp_path / "a.pth"
    torch.save(state, path)
    return load_generator(path)


def test_tensors_under_two_names_are_rejected():
    architecture = tiny_architecture()
    state = earlier(random_state(architecture), architecture)
    first = {name.replace(".block.", "."): value for name, value in state.items() if ".block." in name}
    with pytest.raises(WeightsError, match="twice under different names"):
        to_basicsr_names({**state, **first}, "a.pth")


def test_upsampling_kind_must_match_layer_numbers():
    nearest, subpixel = tiny_architecture(), tiny_architecture(use_subpixel_conv=True)
    for numbers, weights in ((nearest, subpixel), (subpixel, nearest)):
        with pytest.raises(WeightsError, match=r"convolutions for .* upsampling are numbered as for .* upsampling"):
            to_basicsr_names(esrgan_old(random_state(weights), numbers), "a.pth")


# An independent reader of the same files


@pytest.mark.parametrize("write", [DIALECT_WRITERS["BasicSR names"], esrgan_new, esrgan_old])
@pytest.mark.parametrize(
    ("scale", "unshuffle", "channels", "blocks"),
    [(1, False, 3, 2), (2, False, 1, 1), (4, False, 3, 3), (8, False, 4, 2), (2, True, 3, 2), (1, True, 1, 3)],
)
@pytest.mark.slow
def test_spandrel_loads_the_same_weights(tmp_path, write, scale, unshuffle, channels, blocks):
    sizes = {"rrdb_channels": 8, "growth_channels": 32, "num_dense_blocks": 3, "num_residual_blocks": 5}
    architecture = tiny_architecture(
        **sizes, num_basic_blocks=blocks, scale_factor=scale, img_channels=channels, pixel_unshuffle=unshuffle
    )
    path = tmp_path / "a.pth"
    state = {name: value * 0.1 for name, value in random_state(architecture).items()}
    torch.save(write(state, architecture), path)
    ours, theirs = load_generator(path), spandrel.ModelLoader().load_from_file(path)
    assert ours.architecture == architecture
    assert theirs.architecture.id == "ESRGAN"
    assert (theirs.scale, theirs.input_channels, theirs.output_channels) == (scale, channels, channels)
    assert f"{blocks}nb" in theirs.tags
    assert "8nf" in theirs.tags
    assert ("unshuffle" in theirs.tags) == unshuffle
    low = torch.rand(1, channels, 8, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, got = theirs.model(low), ours.build()(low)
    # spandrel multiplies and adds in two operations instead of one, so the last bits of float32 differ.
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6 * expected.abs().max().item())
