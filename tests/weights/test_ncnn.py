"""ncnn pairs are found from either file, read completely, and rejected if they are not RRDBNet."""

import re
import struct
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esrgan.errors import WeightsError
from esrgan.export import export_ncnn
from esrgan.weights import CompactArchitecture, RRDBNetArchitecture, load_generator, save_file
from tests.helpers.weight_files import TINY, NcnnWriter, random_state

STATE = random_state(TINY)


@pytest.fixture
def pair(tmp_path):
    return NcnnWriter(STATE, TINY).write(tmp_path / "net")


def error_text(path):
    with pytest.raises(WeightsError) as error:
        load_generator(path)
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < len(str(path)) + 300
    return text


def error_after_edit(pair, old, new, count=1):
    """Change the .param and return the error of loading it."""
    text = pair[0].read_text("utf-8")
    assert re.search(old, text, re.MULTILINE)
    pair[0].write_text(re.sub(old, new, text, count=count, flags=re.MULTILINE), "utf-8")
    return error_text(pair[0])


def test_layers_that_do_nothing_may_be_left_out(tmp_path):
    architecture = CompactArchitecture(scale_factor=1, img_channels=3, num_feat=5, num_conv=1)
    state = random_state(architecture)
    save_file(tmp_path / "net.pth", {"params": state})
    export_ncnn(load_generator(tmp_path / "net.pth"), tmp_path / "net.param")
    text = (tmp_path / "net.param").read_text("utf-8")
    lines = [line.split() for line in text.splitlines()[2:]]
    for left_out in ({"PixelShuffle"}, {"Interp"}, {"PixelShuffle", "Interp"}):
        kept, renamed = [], {}
        for kind, name, *rest in lines:
            words = [renamed.get(word, word) for word in rest]
            if kind in left_out:
                renamed[rest[3]] = words[2]
            else:
                kept.append(" ".join([kind, name, *words]))
        (tmp_path / "net.param").write_text("\n".join(["7767517", f"{len(kept)} {len(kept)}", *kept, ""]), "utf-8")
        assert load_generator(tmp_path / "net").architecture == architecture


@pytest.mark.parametrize("convs", [3, 4, 5, 6])
def test_esrgan_plus_of_any_depth_is_read_back(tmp_path, convs):
    architecture = replace(TINY, plus=True, num_residual_blocks=convs)
    save_file(tmp_path / "net.pth", {"params": random_state(architecture)})
    export_ncnn(load_generator(tmp_path / "net.pth"), tmp_path / "net.param")
    assert load_generator(tmp_path / "net.param").architecture == architecture


@pytest.mark.parametrize("name", ["net.param", "net.bin", "net"])
@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("fused", [True, False])
def test_pair_is_loaded_from_either_file_or_common_name(tmp_path, name, half, fused):
    NcnnWriter(STATE, TINY, fused, half).write(tmp_path / "net")
    file = load_generator(tmp_path / name)
    assert file.path == tmp_path / name
    assert file.dialect == "ncnn"
    assert file.architecture == TINY
    assert file.state.keys() == STATE.keys()
    assert all(torch.equal(file.state[key], STATE[key]) for key in STATE)
    assert all(value.dtype == torch.float32 for value in file.state.values())


@pytest.mark.parametrize(
    "changes", [{"img_channels": 1, "rrdb_channels": 3, "growth_channels": 1}, {"img_channels": 4}]
)
def test_weights_are_padded_to_four_bytes(tmp_path, changes):
    architecture = RRDBNetArchitecture(**{**vars(TINY), **changes, "rrdb_channels": 3, "growth_channels": 1})
    state = random_state(architecture)
    NcnnWriter(state, architecture).write(tmp_path / "net")
    read = load_generator(tmp_path / "net.bin").state
    assert all(torch.equal(read[key], state[key]) for key in state)


def test_a_byte_order_mark_before_the_text_is_skipped(pair):
    pair[0].write_bytes(b"\xef\xbb\xbf" + pair[0].read_bytes())
    for path in pair:
        assert load_generator(path).architecture == TINY


def test_names_with_two_dots_are_pairs(tmp_path):
    NcnnWriter(STATE, TINY).write(tmp_path / "net.ncnn")
    for name in ("net.ncnn.param", "net.ncnn.bin", "net.ncnn"):
        assert load_generator(tmp_path / name).architecture == TINY


def test_missing_half_of_a_pair_is_reported(pair):
    param, weights = pair
    content = weights.read_bytes()
    weights.unlink()
    assert error_text(param) == f"{param}: its net.bin is missing; put it in the same folder"
    assert "no such file" in error_text(param.with_suffix(""))
    weights.write_bytes(content)
    param.unlink()
    assert error_text(weights) == f"{weights}: its net.param is missing; put it in the same folder"


def test_truncated_weights_are_rejected_at_any_length(pair):
    whole = pair[1].read_bytes()
    for length in {1, 3, 4, 5, *range(0, len(whole), 301), len(whole) - 1, len(whole) - 4}:
        pair[1].write_bytes(whole[:length])
        text = error_text(pair[0])
        assert text.startswith(f"{pair[1]}: expected at least ")
        assert "it is truncated or does not belong to its .param; download both files again" in text


def test_trailing_bytes_are_rejected(pair):
    size = pair[1].stat().st_size
    with pair[1].open("ab") as file:
        file.write(bytes(8))
    message = (
        f"{pair[1]}: expected {size:,} bytes, got {size + 8:,}; it does not belong to its .param; "
        "download both files again"
    )
    assert error_text(pair[0]) == message


@pytest.mark.parametrize("flag", [0x000D4B38, 1, 0xFFFFFFFF])
def test_quantised_weights_are_rejected(pair, flag):
    content = pair[1].read_bytes()
    pair[1].write_bytes(struct.pack("<I", flag) + content[4:])
    assert f"got flag {flag:#010x}; it has 8-bit weights or does not belong to its .param" in error_text(pair[0])


def test_weights_that_are_not_finite_are_rejected(pair):
    content = pair[1].read_bytes()
    pair[1].write_bytes(content[:4] + b"\x00\x7c" + content[6:])
    assert "NaN or infinity in 1 of 36 tensors (first: conv_first.weight)" in error_text(pair[0])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (r"^ReLU|^Split ", "PReLU ", "split2, where RRDBNet has body.0.rdb1.conv1, is connected, activated or scaled"),
        (r"^Split ", "Deconvolution ", "as in waifu2x and Real-CUGAN"),
        (r"^Split ", "Softmax ", "got Softmax split2; only RRDBNet and SRVGGNetCompact are supported"),
        (r"2\.000000e-01$", "1.000000e-01", "expected LeakyReLU with slope 0.2, got slope 0.1"),
        (r" 9=2 -23310=1,2\.000000e-01", " 9=1", "expected LeakyReLU with slope 0.2, got slope 0"),
        (r" 9=2 -23310=1,2\.000000e-01", " 9=5", "expected LeakyReLU with slope 0.2, got another activation"),
        (r" 9=2 -23310=1,2\.000000e-01", "", "where RRDBNet has body.0.rdb1.conv2, is connected, activated or scaled"),
        (r"1=3 4=1", "1=1 4=0", "expected a 3×3 convolution of stride 1 with a bias, got Convolution_1 of 1×1"),
        (r"1=3 4=1", "1=3 3=2 4=1", "or with other stride, padding"),
        (r" 5=1", "", "with a bias"),
        (r" 5=1 6", " 5=1 8=2 6", "8-bit weights"),
        (r"-23301=2,2\.000000e-01", "-23301=2,3.000000e-01", "is connected, activated or scaled differently"),
        (r"(Eltwise .* )0=1", r"\g<1>0=2", "with options or inputs of another network"),
        (r"(Interp .* )0=1", r"\g<1>0=2", "with options or inputs of another network"),
        (r"1=2\.0+e\+00", "1=3.0", "with options or inputs of another network"),
        (r"6=108", "6=107", "107 weights do not fit 4 3×3 filters"),
        (r"0=4 ", "0=0 ", "expected a layer of an ncnn network"),
        (r"0=4 ", "0=nan ", "expected a layer of an ncnn network"),
        (r"0=4 ", "0=-4 ", "weights do not fit -4 3×3 filters"),
        (r"0=4 1=3 4=1 5=1 6=108", "0=1e12 1=3 4=1 5=1 6=27e12", "truncated"),
        (r"1 1 b0 b1", "1 1 b9 b1", "expected a layer of an ncnn network"),
        (r"1 1 b0 b1", "1 one b0 b1", "expected a layer of an ncnn network"),
        (r"^7767517\n\d+ \d+\n", "7767517\n3 3\n", "expected 3 layers, got "),
        (r"^7767517\n\d+ \d+\n", "7767517\n\n", "expected the stated number of layers, got "),
        (r"(?s)^7767517\n.*", "7767517\n", "expected the stated number of layers, got 0; the file is damaged"),
        (r"(?s)^7767517\n.*", "7767517", "expected the stated number of layers, got 0; the file is damaged"),
        (r"^Convolution .*\n\Z", "", "the file is damaged or truncated"),
    ],
)
def test_params_of_other_networks_are_rejected(pair, old, new, message):
    assert message in error_after_edit(pair, old, new)


def test_a_layer_too_many_is_rejected(pair):
    text = pair[0].read_text("utf-8").rstrip()
    head, counts, *layers = text.split("\n")
    counts = f"{len(layers) + 1} {int(counts.split()[1]) + 1}"
    pair[0].write_text(
        "\n".join([head, counts, *layers, f"PReLU act 1 1 {layers[-1].split()[5]} act 0=3", ""]), "utf-8"
    )
    pair[1].write_bytes(pair[1].read_bytes() + struct.pack("<3f", 0.1, 0.1, 0.1))
    assert "has 19 layers with weights, not 18; this is another network" in error_text(pair[0])


def test_differently_wired_network_is_rejected(pair):
    text = pair[0].read_text("utf-8")
    concat = next(line for line in text.splitlines() if line.startswith("Concat") and " 3 1 " in line)
    *start, first, second, blob = concat.split()
    pair[0].write_text(text.replace(concat, " ".join([*start, second, first, blob])), "utf-8")
    assert "where RRDBNet has body.0.rdb1.conv3, is connected" in error_text(pair[0])


def test_missing_long_skip_is_rejected(pair):
    text = pair[0].read_text("utf-8")
    line = next(line for line in text.splitlines() if line.startswith("BinaryOp"))
    pair[0].write_text(text.replace(line, f"{line} 1=0").replace(f"{line} 1=0", line.replace("0=0", "0=1")), "utf-8")
    assert "with options or inputs of another network" in error_text(pair[0])


def test_mismatched_pair_is_rejected(tmp_path):
    NcnnWriter(STATE, TINY).write(tmp_path / "a")
    other = RRDBNetArchitecture(**{**vars(TINY), "num_basic_blocks": 1})
    _, weights = NcnnWriter(random_state(other), other).write(tmp_path / "b")
    (tmp_path / "a.bin").write_bytes(weights.read_bytes())
    assert "does not belong to its .param" in error_text(tmp_path / "a.param")


def test_pixel_unshuffle_must_fit_the_channels(tmp_path):
    architecture = RRDBNetArchitecture(**{**vars(TINY), "scale_factor": 2, "pixel_unshuffle": True})
    pair = NcnnWriter(random_state(architecture), architecture).write(tmp_path / "net")
    assert load_generator(pair[1]).architecture == architecture
    assert "input channels (12) and output channels (3) do not fit pixel unshuffle by 3" in error_after_edit(
        pair, r"(Reorg .*)0=2", r"\g<1>0=3"
    )


def test_text_of_another_encoding_is_rejected(pair):
    pair[0].write_bytes(b"7767517\n1 1\n\xff\xfe")
    assert "cannot be read as the text of an ncnn network" in error_text(pair[0])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.slow
def test_damaged_pairs_are_loaded_or_rejected_cleanly(tmp_path, data):
    pair = NcnnWriter(STATE, TINY).write(tmp_path / "net")
    param, weights = (bytearray(path.read_bytes()) for path in pair)
    for _ in range(data.draw(st.integers(1, 4))):
        content = data.draw(st.sampled_from([param, param, weights]))
        content[data.draw(st.integers(8, len(content) - 1))] = data.draw(st.integers(0, 255))
    pair[0].write_bytes(param)
    pair[1].write_bytes(weights)
    text = "read"
    try:
        load_generator(pair[0])
    except WeightsError as error:
        text = str(error)
    assert len(text.splitlines()) == 1
