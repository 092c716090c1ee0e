import io
import json
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esrgan.errors import WeightsError
from esrgan.models import RRDBNet, UNetDiscriminator, VGGDiscriminator
from esrgan.weights import Architecture, infer_architecture, load_file, load_generator, save_file

TINY = {
    "rrdb_channels": 4,
    "growth_channels": 2,
    "num_basic_blocks": 2,
    "num_dense_blocks": 2,
    "num_residual_blocks": 3,
}
TINY_ARCHITECTURE = Architecture(
    scale_factor=4, img_channels=3, **TINY, use_subpixel_conv=False, pixel_unshuffle=False, residual_scaling=0.2
)
SUFFIXES = [".pth", ".pt", ".safetensors"]
IN_TMP = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def message(error, path):
    """The text of an error, which must be one line that begins with the file."""
    text = str(error)
    assert "\n" not in text
    assert len(error.problems) == 1
    assert text.startswith(f"{path}: ")
    return text


def refused(path):
    with pytest.raises(WeightsError) as error:
        load_generator(path)
    return message(error.value, path)


def read_or_refused(path):
    try:
        return load_generator(path)
    except WeightsError as error:
        message(error, path)
        return None


def random_state(seed=0, **arguments):
    """Weights of a size that makes outputs tell networks apart."""
    network = RRDBNet(**{**TINY, **arguments})
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(v.shape, generator=generator) * 0.3 for name, v in network.state_dict().items()}


STATE = random_state()


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Model files


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("stage", ["pretraining", "training"])
def test_model_files_are_read_back(tmp_path, suffix, stage):
    hparams = {"scale_factor": 4, "generator": {"residual_scaling": 0.35, "note": "β"}, "seeds": [1, 2]}
    path = tmp_path / f"a{suffix}"
    save_file(path, {"params": STATE, "stage": stage, "hparams": hparams, "alpha": 0.8})
    file = load_generator(path)
    assert file.path == path
    assert equal(file.state, STATE)
    assert file.stage == stage
    assert file.alpha == 0.8
    assert file.hparams == hparams
    assert file.architecture == Architecture(**{**vars(TINY_ARCHITECTURE), "residual_scaling": 0.35})
    network = file.build()
    assert isinstance(network, RRDBNet)
    assert not network.training
    assert equal(network.state_dict(), STATE)
    expected = RRDBNet(**TINY, residual_scaling=0.35)
    expected.load_state_dict(STATE)
    low = torch.rand(1, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(low), expected(low))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_that_say_nothing_about_themselves_are_read(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    save_file(path, {"params": STATE})
    file = load_generator(str(path))
    assert (file.stage, file.alpha, file.hparams) == (None, None, {})
    assert file.architecture == TINY_ARCHITECTURE


def test_what_a_file_is_can_be_said_in_words(tmp_path):
    path = tmp_path / "a.pth"
    for content, words in (
        ({"stage": "pretraining"}, "PSNR stage"),
        ({"stage": "training"}, "GAN stage"),
        ({"stage": "training", "alpha": 0.8}, "α = 0.8"),
        ({}, "unknown"),
    ):
        save_file(path, {"params": STATE, **content})
        text = load_generator(path).describe()
        assert words in text
        assert "×4 4/2/2" in text


@pytest.mark.parametrize("junk", [{"stage": "third"}, {"stage": 5, "alpha": "high", "hparams": [1]}, {"stage": None}])
def test_foreign_values_under_our_keys_are_ignored(tmp_path, junk):
    path = tmp_path / "a.pth"
    save_file(path, {"params": STATE, **junk})
    file = load_generator(path)
    assert (file.stage, file.alpha, file.hparams) == (None, None, {})


def test_half_precision_weights_are_read_as_float32(tmp_path):
    path = tmp_path / "a.pth"
    save_file(path, {"params": {name: value.half() for name, value in STATE.items()}})
    state = load_generator(path).state
    assert {value.dtype for value in state.values()} == {torch.float32}
    assert equal(state, {name: value.half().float() for name, value in STATE.items()})


# Containers

OTHER = random_state(seed=1)


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
@pytest.mark.parametrize(
    "content",
    [
        STATE,
        OrderedDict(STATE),
        {"params_ema": STATE},
        {"params": OTHER, "params_ema": STATE},
        {"params_ema": STATE, "params": OTHER},
        {"params": STATE},
        {"state_dict": STATE, "epoch": 3},
        {"model_state_dict": STATE, "optimizer": {"lr": 1e-4, "momenta": [torch.zeros(2)]}},
        {"g_model_state_dict": STATE, "d_model_state_dict": {"features.block_0.conv.weight": torch.zeros(1)}},
        {"params_ema": None, "params": STATE},
        {f"module.{name}": value for name, value in STATE.items()},
        {"params": {f"module.{name}": value for name, value in STATE.items()}},
        {"state_dict": OrderedDict((f"module.{name}", value) for name, value in STATE.items())},
    ],
    ids=lambda content: next(iter(content)),
)
def test_generators_are_found_in_every_container(tmp_path, content, suffix):
    path = tmp_path / f"a{suffix}"
    torch.save(content, path)
    file = load_generator(path)
    assert equal(file.state, STATE)
    assert file.architecture == TINY_ARCHITECTURE


def test_files_of_pytorch_before_the_zip_format_are_read(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"params": STATE}, path, _use_new_zipfile_serialization=False)
    assert equal(load_generator(path).state, STATE)


def test_safetensors_written_by_others_are_read(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(STATE, path, {"format": "pt"})
    assert equal(load_generator(path).state, STATE)
    safetensors.torch.save_file({f"module.{name}": value for name, value in STATE.items()}, path)
    assert equal(load_generator(path).state, STATE)


@pytest.mark.parametrize("key", ["params", "params_ema", "state_dict", "model", "generator"])
def test_metadata_of_safetensors_is_not_taken_for_weights(tmp_path, key):
    path = tmp_path / "a.safetensors"
    for text in ('{"arch": "esrgan"}', "{}", "16697987", "none"):
        safetensors.torch.save_file(STATE, path, {key: text, "stage": "training"})
        file = load_generator(path)
        assert equal(file.state, STATE)
        assert file.stage == "training"


@pytest.mark.parametrize("value", [10**400, -(10**400), float("nan"), float("inf")])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_numbers_that_are_not_finite_are_refused(tmp_path, suffix, value):
    path = tmp_path / f"a{suffix}"
    for name, content in (
        ("alpha", {"alpha": value}),
        ("residual_scaling", {"hparams": {"generator": {"residual_scaling": value}}}),
    ):
        save_file(path, {"params": STATE, **content})
        assert refused(path) == f"{path}: expected {name} to be a finite number; the file is damaged"


# The architecture

ARCHITECTURES = st.builds(
    Architecture,
    scale_factor=st.sampled_from([1, 2, 4, 8]),
    img_channels=st.sampled_from([1, 3, 4]),
    rrdb_channels=st.integers(1, 7),
    growth_channels=st.integers(1, 5),
    num_basic_blocks=st.integers(1, 3),
    num_dense_blocks=st.integers(1, 3),
    num_residual_blocks=st.integers(1, 4),
    use_subpixel_conv=st.booleans(),
    pixel_unshuffle=st.booleans(),
).filter(lambda architecture: not (architecture.pixel_unshuffle and architecture.scale_factor > 2))


@settings(max_examples=80, deadline=None)
@given(ARCHITECTURES)
def test_architectures_are_read_off_their_state_dicts(architecture):
    state = architecture.build().state_dict()
    inferred = infer_architecture(state)
    expected = dict(vars(architecture))
    if architecture.num_residual_blocks == 1:  # nothing grows where the only convolution closes the block
        expected["growth_channels"] = inferred.growth_channels
    if architecture.scale_factor == 1 and not architecture.pixel_unshuffle:  # nothing is upsampled
        expected["use_subpixel_conv"] = inferred.use_subpixel_conv
    assert vars(inferred) == expected
    network = inferred.build()
    network.load_state_dict(state)
    original = architecture.build()
    original.load_state_dict(state)
    low = torch.rand(1, architecture.img_channels, 3, 2)
    with torch.no_grad():
        assert torch.equal(network(low), original(low))


@pytest.mark.parametrize(
    ("arguments", "start", "word"),
    [
        ({}, "RRDBNet ×4 4/2/2", ""),
        ({"scale_factor": 2, "use_subpixel_conv": True}, "RRDBNet ×2 4/2/2", "use_subpixel_conv"),
        ({"scale_factor": 1, "pixel_unshuffle": True}, "RRDBNet ×1 4/2/2", "pixel_unshuffle"),
    ],
)
def test_architectures_are_named(arguments, start, word):
    text = str(infer_architecture(random_state(**arguments)))
    assert text.startswith(start)
    assert [name for name in ("use_subpixel_conv", "pixel_unshuffle") if name in text] == ([word] if word else [])


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("conv_last.weight", (7, 4, 3, 3)),  # more channels out than in
        ("conv_last.weight", (2, 4, 3, 3)),
        ("conv_first.weight", (4, 27, 3, 3)),  # folded by 3
        ("conv_first.weight", (4, 75, 3, 3)),  # folded by 5
    ],
)
def test_channels_that_no_generator_has_are_refused(tmp_path, name, shape):
    path = tmp_path / "a.pth"
    torch.save({**STATE, name: torch.zeros(shape)}, path)
    refused(path)


@pytest.mark.parametrize("ups", [4, 9])
@pytest.mark.parametrize("fold", [1, 2])
def test_scales_that_no_generator_has_are_refused(tmp_path, ups, fold):
    extra = {
        f"conv_up{i}.{kind}": STATE[f"conv_up1.{kind}"].clone()  # tensors that share memory are refused for that
        for i in range(1, ups + 1)
        for kind in ("weight", "bias")
    }
    path = tmp_path / "a.pth"
    torch.save({**STATE, **extra, "conv_first.weight": torch.zeros(4, 3 * fold**2, 3, 3)}, path)
    assert f"{ups} upsamplings: no ESRGAN generator has these" in refused(path)


# Files that are none


def test_missing_files_are_said_to_be_missing(tmp_path):
    assert "no such file" in refused(tmp_path / "a.pth")
    assert "no such file" in refused(tmp_path / "no folder" / "a.safetensors")
    assert "no such file" in refused(tmp_path / "a\0.pth")


def test_names_too_long_for_the_file_system_are_refused(tmp_path):
    refused(tmp_path / f"{'a' * 300}.pth")


@pytest.mark.parametrize("suffix", ["", *SUFFIXES])
def test_folders_are_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.mkdir()
    assert "folder" in refused(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
        (b"\n  <html>\n", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 66\n", ""),
        (b'{"error": "Entry not found"}', ""),
        (b"PK\x03\x04", ""),
        (b"PK\x05\x06" + bytes(18), ""),  # a zip archive with nothing in it
        (b"\x89PNG\r\n\x1a\n" + bytes(60), ""),
        (b"\xff" * 8 + b"{}", ""),  # a safetensors header longer than any file
        (bytes(4096), ""),
        (b"\x80\x02.", ""),
        (b"(" * 5000, ""),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, suffix, content, word):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    assert word in refused(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@IN_TMP
@given(content=st.binary(max_size=300))
def test_random_bytes_are_refused(tmp_path, suffix, content):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", "old.pth"])
def test_truncated_files_are_refused_wherever_they_end(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == "old.pth":
        torch.save({"params": STATE}, path, _use_new_zipfile_serialization=False)
    else:
        save_file(path, {"params": STATE})
    whole = path.read_bytes()
    lengths = {1, 2, 7, 8, 9, 30, 64, 100, len(whole) - 1, len(whole) - 4, len(whole) - 22}
    lengths |= {len(whole) * i // 40 for i in range(1, 40)}
    for length in sorted(lengths):
        path.write_bytes(whole[:length])
        refused(path)


def whole_files():
    """The bytes of a model file in both formats."""
    file = io.BytesIO()
    torch.save({"params": STATE, "stage": "training", "alpha": 0.8, "hparams": {"generator": {"a": 1}}}, file)
    return {".pth": file.getvalue(), ".safetensors": safetensors.torch.save(STATE, {"hparams": '{"generator": {}}'})}


WHOLE = whole_files()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@IN_TMP
@given(data=st.data())
def test_damaged_files_are_refused_or_read_never_anything_else(tmp_path, suffix, data):
    path = tmp_path / f"a{suffix}"
    content = bytearray(WHOLE[suffix])
    header = st.integers(0, content.index(b"/byteorder" if suffix == ".pth" else b"}}"))  # names, shapes, metadata
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(header | st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    read_or_refused(path)


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("how", ["bare pickle", "zip", "zip beside weights", "old"])
def test_code_in_a_file_is_never_run(tmp_path, suffix, how):
    marker, path = tmp_path / "ran", tmp_path / f"a{suffix}"
    if how == "bare pickle":
        path.write_bytes(pickle.dumps(Payload(marker), protocol=2))
    else:
        content = {"params": Payload(marker)} if how == "zip" else {"params": STATE, "stage": Payload(marker)}
        torch.save(content, path, _use_new_zipfile_serialization=how != "old")
    text = refused(path)
    assert not marker.exists()
    if suffix != ".safetensors":
        assert "code" in text


def test_whole_networks_are_refused_with_advice(tmp_path):
    path = tmp_path / "a.pth"
    torch.save(RRDBNet(**TINY), path)
    assert "state_dict" in refused(path)


@pytest.mark.parametrize("content", [list(STATE.values()), torch.zeros(3), "params", 5, None])
def test_anything_but_a_dictionary_is_refused(tmp_path, content):
    path = tmp_path / "a.pth"
    torch.save(content, path)
    assert type(content).__name__ in refused(path)


@pytest.mark.parametrize(
    "content", [{}, {"params": {}}, {"stage": "training"}, {5: 6}, {"params": {"a": 1.5}}, {"params": [STATE]}]
)
def test_dictionaries_without_weights_are_refused(tmp_path, content):
    path = tmp_path / "a.pth"
    torch.save(content, path)
    assert "no tensors" in refused(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_other_networks_are_called_by_their_names(tmp_path, suffix):
    with torch.device("meta"):
        shapes = torchvision.models.vgg11(weights=None).features[:4].state_dict()
    vgg = {f"features.{name}": torch.zeros(value.shape) for name, value in shapes.items()}
    path = tmp_path / f"a{suffix}"
    for state, kind in (
        (VGGDiscriminator(3, (4, 4), (2,)).state_dict(), "discriminator"),
        (UNetDiscriminator(3, 2).state_dict(), "discriminator"),
        (vgg, "VGG"),
        (torch.nn.Linear(2, 2).state_dict(), "2 tensors of another network"),
    ):
        save_file(path, {"params": state})
        text = refused(path)
        assert kind in text
        assert "expected an ESRGAN generator" in text


# Incomplete and contradictory state dicts


def test_each_missing_tensor_is_noticed(tmp_path):
    path = tmp_path / "a.pth"
    for missing in STATE:
        torch.save({name: value for name, value in STATE.items() if name != missing}, path)
        refused(path)


def test_half_of_the_tensors_is_not_enough(tmp_path):
    path = tmp_path / "a.pth"
    names = list(STATE)
    for half in (names[::2], names[1::2], names[: len(names) // 2], names[len(names) // 2 :]):
        torch.save({name: STATE[name] for name in half}, path)
        refused(path)
    keep = {"conv_first", "conv_body", "conv_hr", "conv_last", "body.1.rdb2.conv3"}
    torch.save({name: value for name, value in STATE.items() if name.rsplit(".", 1)[0] in keep}, path)
    refused(path)


@IN_TMP
@given(missing=st.sets(st.sampled_from(sorted(STATE)), min_size=1))
def test_subsets_are_refused_unless_a_smaller_network_is_whole(tmp_path, missing):
    path = tmp_path / "a.pth"
    torch.save({name: value for name, value in STATE.items() if name not in missing}, path)
    file = read_or_refused(path)
    if file:
        assert file.architecture != TINY_ARCHITECTURE
        assert equal(file.build().state_dict(), file.state)


def test_each_tensor_of_another_shape_is_noticed(tmp_path):
    path = tmp_path / "a.pth"
    for name, value in STATE.items():
        # A network of other channels has other shapes in several places: one alone is always a contradiction.
        for shape in ((), (0, *value.shape[1:]), (value.shape[0] + 1, *value.shape[1:]), (*value.shape, 1)):
            torch.save({**STATE, name: torch.zeros(shape)}, path)
            refused(path)


@pytest.mark.parametrize(
    "renamed", [("rdb1", "rdb0"), ("body.0.rdb1.conv1.", "body.00.rdb1.conv1."), ("conv1", "conv0")]
)
def test_blocks_are_counted_from_where_others_count_them(tmp_path, renamed):
    path = tmp_path / "a.pth"
    torch.save({name.replace(*renamed): value for name, value in STATE.items()}, path)
    refused(path)


def test_unknown_tensors_are_noticed(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({**STATE, "conv_extra.weight": torch.zeros(1)}, path)
    assert "conv_extra.weight" in refused(path)


def test_shapes_that_no_memory_holds_are_refused_before_anything_is_made_of_them(tmp_path):
    path = tmp_path / "a.pth"
    for name in ("conv_first.weight", "body.0.rdb1.conv1.weight", "conv_last.weight"):
        huge = torch.zeros(1, 1, 1, 1).expand(3_000_000, *STATE[name].shape[1:])  # four bytes in the file
        torch.save({**STATE, name: huge}, path)
        refused(path)


@pytest.mark.parametrize("number", ["9999", "999999999", "9" * 5000])
@pytest.mark.parametrize("name", ["body.{}.rdb1.conv1", "body.0.rdb{}.conv1", "body.0.rdb1.conv{}"])
def test_blocks_are_counted_before_they_are_made(tmp_path, monkeypatch, name, number):
    path = tmp_path / "a.pth"
    torch.save({**STATE, f"{name.format(number)}.weight": torch.zeros(2, 4, 3, 3)}, path)

    def build(self):
        assert max(self.num_basic_blocks, self.num_dense_blocks, self.num_residual_blocks) < 100
        return RRDBNet(**vars(self))

    monkeypatch.setattr(Architecture, "build", build)
    refused(path)


@pytest.mark.parametrize("depth", [10, 100_000])
def test_metadata_of_any_shape_does_no_harm(tmp_path, depth):
    path = tmp_path / "a.safetensors"
    metadata = {"hparams": "[" * depth, "stage": "{", "alpha": '{"a": 1}'}
    safetensors.torch.save_file(STATE, path, metadata)
    assert equal(load_generator(path).state, STATE)


# Writing


def listing(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "failure", [OSError(28, "No space left on device"), RuntimeError("unexpected pos 64 vs 0\nin file"), None]
)
def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, suffix, failure):
    path = tmp_path / f"a{suffix}"
    save_file(path, {"params": STATE, "stage": "pretraining"})
    before = listing(tmp_path)
    assert list(before) == [path.name]

    def fail(content, target, *_, **__):
        if isinstance(target, (str, Path)):
            Path(target).write_bytes(b"half of it")
        elif isinstance(target, io.IOBase):
            target.write(b"half of it")
        raise failure or KeyboardInterrupt

    for module, name in ((torch, "save"), (safetensors.torch, "save_file"), (safetensors.torch, "save")):
        monkeypatch.setattr(module, name, fail)
    with pytest.raises(WeightsError if failure else KeyboardInterrupt) as error:
        save_file(path, {"params": OTHER, "stage": "training"})
    if failure:
        assert "cannot be written" in message(error.value, path)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, suffix):
    resource = pytest.importorskip("resource")
    path = tmp_path / f"a{suffix}"
    save_file(path, {"params": STATE})
    before = listing(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))  # a third of the file
    try:
        with pytest.raises(WeightsError) as error:
            save_file(path, {"params": OTHER})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be written" in message(error.value, path)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_file_is_flushed_before_it_takes_the_old_ones_place(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"a{suffix}"
    save_file(path, {"params": STATE})
    before = listing(tmp_path)
    sizes = []

    def fail(descriptor):
        sizes.append(os.fstat(descriptor).st_size)
        assert path.read_bytes() == before[path.name]
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(WeightsError):
        save_file(path, {"params": OTHER})
    assert len(sizes) == 1
    assert sizes[0] > 1000
    assert listing(tmp_path) == before


def test_equal_content_makes_equal_files(tmp_path):
    paths = [tmp_path / "a.pth", tmp_path / "b.pth"]
    for path in paths:
        save_file(path, {"params": STATE, "stage": "training", "hparams": {"seed": 1}})
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_writing_replaces_the_old_file_and_makes_folders(tmp_path):
    path = tmp_path / "new" / "folder" / "a.pth"
    save_file(path, {"params": OTHER})
    save_file(str(path), {"params": STATE})
    assert equal(load_generator(path).state, STATE)
    assert [file.name for file in path.parent.iterdir()] == ["a.pth"]


@pytest.mark.parametrize("name", ["file/a.pth", "file/folder/a.safetensors", f"{'a' * 300}.pth", "folder"])
def test_places_that_cannot_be_written_are_refused(tmp_path, name):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    with pytest.raises(WeightsError) as error:
        save_file(tmp_path / name, {"params": STATE})
    message(error.value, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert not list((tmp_path / "folder").iterdir())


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_whoever_may_read_the_folder_s_other_files_may_read_a_weight_file(tmp_path, name):
    (tmp_path / "other").touch()
    save_file(tmp_path / name, {"params": STATE})
    assert (tmp_path / name).stat().st_mode == (tmp_path / "other").stat().st_mode


def test_safetensors_keep_what_is_said_of_them_as_json(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(path, {"params": {"a": torch.arange(6.0).view(2, 3).T}, "stage": "training", "hparams": {"b": [1, None]}})
    with safetensors.safe_open(path, framework="pt") as file:
        assert {key: json.loads(value) for key, value in file.metadata().items()} == {
            "stage": "training",
            "hparams": {"b": [1, None]},
        }
    content = load_file(path)
    assert torch.equal(content["params"]["a"], torch.arange(6.0).view(2, 3).T)
    assert content["stage"] == "training"
