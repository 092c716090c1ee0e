import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esrgan.weights import RRDBNetArchitecture, infer_architecture
from tests.helpers.tiny_generator import (
    IN_TMP,
    STATE,
    TINY_ARCHITECTURE,
    load_error,
    load_or_error,
    random_state,
    same_tensors,
)

# The architecture

ARCHITECTURES = st.builds(
    RRDBNetArchitecture,
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


@settings(max_examples=80)
@given(ARCHITECTURES)
@pytest.mark.slow
def test_architectures_are_inferred_from_state_dicts(architecture):
    state = architecture.build().state_dict()
    inferred = infer_architecture(state)
    expected = dict(vars(architecture))
    if architecture.num_residual_blocks == 1:  # the only convolution of a block adds no channels
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
def test_architectures_have_a_readable_name(arguments, start, word):
    text = str(infer_architecture(random_state(**arguments)))
    assert text.startswith(start)
    assert [name for name in ("use_subpixel_conv", "pixel_unshuffle") if name in text] == ([word] if word else [])


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("conv_last.weight", (7, 4, 3, 3)),  # more output than input channels
        ("conv_last.weight", (2, 4, 3, 3)),
        ("conv_first.weight", (4, 27, 3, 3)),  # pixel unshuffle by 3
        ("conv_first.weight", (4, 75, 3, 3)),  # pixel unshuffle by 5
    ],
)
def test_channels_that_no_generator_has_are_rejected(tmp_path, name, shape):
    path = tmp_path / "a.pth"
    torch.save({**STATE, name: torch.zeros(shape)}, path)
    load_error(path)


@pytest.mark.parametrize("ups", [6, 9])
@pytest.mark.parametrize("fold", [1, 2])
def test_scales_that_no_generator_has_are_rejected(tmp_path, ups, fold):
    # The tensors are clones, because a file whose tensors share memory is rejected for another reason.
    extra = {
        f"conv_up{i}.{kind}": STATE[f"conv_up1.{kind}"].clone()
        for i in range(1, ups + 1)
        for kind in ("weight", "bias")
    }
    path = tmp_path / "a.pth"
    torch.save({**STATE, **extra, "conv_first.weight": torch.zeros(4, 3 * fold**2, 3, 3)}, path)
    message = f"no ESRGAN generator has these numbers: input channels {3 * fold**2}, output channels 3, upsampling "
    assert f"{message}layers {ups}" in load_error(path)


# Incomplete and contradictory state dicts


@pytest.mark.slow
def test_each_missing_tensor_is_detected(tmp_path):
    path = tmp_path / "a.pth"
    for missing in STATE:
        torch.save({name: value for name, value in STATE.items() if name != missing}, path)
        load_error(path)


def test_half_of_the_tensors_is_rejected(tmp_path):
    path = tmp_path / "a.pth"
    names = list(STATE)
    for half in (names[::2], names[1::2], names[: len(names) // 2], names[len(names) // 2 :]):
        torch.save({name: STATE[name] for name in half}, path)
        load_error(path)
    keep = {"conv_first", "conv_body", "conv_hr", "conv_last", "body.1.rdb2.conv3"}
    torch.save({name: value for name, value in STATE.items() if name.rsplit(".", 1)[0] in keep}, path)
    load_error(path)


@IN_TMP
@given(missing=st.sets(st.sampled_from(sorted(STATE)), min_size=1))
def test_subsets_are_rejected_unless_a_complete_smaller_network(tmp_path, missing):
    path = tmp_path / "a.pth"
    torch.save({name: value for name, value in STATE.items() if name not in missing}, path)
    file = load_or_error(path)
    if file:
        assert file.architecture != TINY_ARCHITECTURE
        assert same_tensors(file.build().state_dict(), file.state)


@pytest.mark.slow
def test_each_tensor_of_another_shape_is_detected(tmp_path):
    path = tmp_path / "a.pth"
    for name, value in STATE.items():
        # Other numbers of channels change several shapes, so a single changed shape is always a contradiction.
        for shape in ((), (0, *value.shape[1:]), (value.shape[0] + 1, *value.shape[1:]), (*value.shape, 1)):
            torch.save({**STATE, name: torch.zeros(shape)}, path)
            load_error(path)


@pytest.mark.parametrize(
    "renamed", [("rdb1", "rdb0"), ("body.0.rdb1.conv1.", "body.00.rdb1.conv1."), ("conv1", "conv0")]
)
def test_block_numbers_must_start_where_basicsr_starts(tmp_path, renamed):
    path = tmp_path / "a.pth"
    torch.save({name.replace(*renamed): value for name, value in STATE.items()}, path)
    load_error(path)


def test_unknown_tensors_are_detected(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({**STATE, "conv_extra.weight": torch.zeros(1)}, path)
    assert "conv_extra.weight" in load_error(path)


def test_huge_shapes_are_rejected_before_allocation(tmp_path):
    path = tmp_path / "a.pth"
    for name in ("conv_first.weight", "body.0.rdb1.conv1.weight", "conv_last.weight"):
        huge = torch.zeros(1, 1, 1, 1).expand(3_000_000, *STATE[name].shape[1:])  # four bytes in the file
        torch.save({**STATE, name: huge}, path)
        load_error(path)


@pytest.mark.parametrize("number", ["9999", "999999999", "9" * 5000])
@pytest.mark.parametrize("name", ["body.{}.rdb1.conv1", "body.0.rdb{}.conv1", "body.0.rdb1.conv{}"])
def test_block_count_is_checked_before_building(tmp_path, monkeypatch, name, number):
    path = tmp_path / "a.pth"
    torch.save({**STATE, f"{name.format(number)}.weight": torch.zeros(2, 4, 3, 3)}, path)

    build_unchecked = RRDBNetArchitecture.build

    def build(self):
        assert max(self.num_basic_blocks, self.num_dense_blocks, self.num_residual_blocks) < 100
        return build_unchecked(self)

    monkeypatch.setattr(RRDBNetArchitecture, "build", build)
    load_error(path)
