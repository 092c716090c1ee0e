"""Write generators in every dialect and as ncnn pairs, without using any code of the reader."""

import numpy as np
import torch

from esrgan.weights import RRDBNetArchitecture

TINY = RRDBNetArchitecture(
    scale_factor=4,
    img_channels=3,
    rrdb_channels=4,
    growth_channels=2,
    num_basic_blocks=2,
    num_dense_blocks=2,
    num_residual_blocks=3,
    use_subpixel_conv=False,
    pixel_unshuffle=False,
)


def random_state(architecture, seed=0):
    """Return weights that float16 represents exactly, large enough for different networks to differ in output."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: value.shape for name, value in architecture.build().state_dict().items()}
    return {name: (torch.randn(shape, generator=generator) * 0.3).half().float() for name, shape in shapes.items()}


def basicsr(state, architecture):
    return dict(state)


def esrgan_new(state, architecture):
    parts = (("conv_body", "trunk_conv"), ("body.", "RRDB_trunk."), (".rdb", ".RDB"))
    parts += (("conv_up", "upconv"), ("conv_hr", "HRconv"))
    return renamed(state, parts)


def renamed(state, parts):
    result = {}
    for name, value in state.items():
        for ours, theirs in parts:
            name = name.replace(ours, theirs)
        result[name] = value
    return result


def esrgan_old(state, architecture):
    """Number the layers like a flat nn.Sequential of these modules."""
    ups = sorted({name.split(".")[0] for name in state if name.startswith("conv_up")})
    modules = ["conv_first", "trunk"]
    for up in ups:
        modules += [up, "PixelShuffle", "act"] if architecture.use_subpixel_conv else ["Upsample", up, "act"]
    modules += ["conv_hr", "act", "conv_last"]
    result = {}
    for name, value in state.items():
        layer, kind = name.rsplit(".", 1)
        if layer.startswith("body."):
            _, i, rdb, conv = layer.split(".")
            result[f"model.1.sub.{i}.{rdb.upper()}.{conv}.0.{kind}"] = value
        elif layer == "conv_body":
            result[f"model.1.sub.{architecture.num_basic_blocks}.{kind}"] = value
        else:
            result[f"model.{modules.index(layer)}.{kind}"] = value
    return result


def earlier(state, architecture, block=".block", scalars=True):
    result = {}
    for name, value in state.items():
        layer, kind = name.rsplit(".", 1)
        if layer.startswith("body."):
            _, i, rdb, conv = layer.split(".")
            j, k = int(rdb[3:]) - 1, int(conv[4:]) - 1
            layer = f"rrdb_blocks.rrdb_{i}.dense_blocks.rdb_{j}.blocks.{k}.conv"
            if scalars:
                for place in ("", f"dense_blocks.rdb_{j}."):
                    beta = torch.tensor(architecture.residual_scaling)
                    result[f"rrdb_blocks.rrdb_{i}.{place}residual_scaling"] = beta
        elif layer.startswith("conv_up"):
            layer = f"upsampling_blocks.upsampling_{int(layer[7:]) - 1}{block}.conv"
        else:
            ends = {"conv_first": "in_conv", "conv_body": "rrdb_blocks.out_conv"}
            ends |= {"conv_hr": "upsampling_blocks.out_conv.0", "conv_last": "upsampling_blocks.out_conv.2"}
            layer = ends[layer]
        result[f"{layer}.{kind}"] = value
    return result


def earlier_first_versions(state, architecture):
    return earlier(state, architecture, block="")


DIALECT_WRITERS = {
    "BasicSR names": basicsr,
    "ESRGAN new names": esrgan_new,
    "ESRGAN old names": esrgan_old,
    "names of the earlier framework": earlier,
    "names of the earlier framework (first versions)": earlier_first_versions,
}


class NcnnWriter:
    """Writer of RRDBNet in the format of other ncnn exporters.

    Args:
        fused: Write activations as options of the convolutions and scaled sums as Eltwise, like an optimising
            converter; otherwise as separate layers.
        half: Write weights in float16.
    """

    def __init__(self, state, architecture, fused=True, half=True, slope=0.2):
        self.state, self.a, self.fused, self.half, self.slope = state, architecture, fused, half, slope
        self.layers, self.bin = [], b""
        self.beta = f"{architecture.residual_scaling:e}"

    def layer(self, kind, inputs, options=""):
        blob = f"b{len(self.layers)}"
        names = " ".join([*inputs, blob])
        self.layers.append(f"{kind:24} {kind}_{len(self.layers):<20} {len(inputs)} 1 {names} {options}".rstrip())
        return blob

    def conv(self, name, source, active=False):
        weight, bias = self.state[f"{name}.weight"].numpy(), self.state[f"{name}.bias"].numpy()
        options = f"0={len(bias)} 1=3 4=1 5=1 6={weight.size}"
        if active and self.fused:
            options += f" 9=2 -23310=1,{self.slope:e}"
        self.bin += np.uint32(0x01306B47 if self.half else 0).tobytes()
        data = weight.astype("<f2" if self.half else "<f4").tobytes()
        self.bin += data + bytes(-len(data) % 4) + bias.astype("<f4").tobytes()
        blob = self.layer("Convolution", [source], options)
        return self.layer("ReLU", [blob], f"0={self.slope:e}") if active and not self.fused else blob

    def scaled_sum(self, x, residual):
        if self.fused:
            return self.layer("Eltwise", [residual, x], f"0=1 -23301=2,{self.beta},1.000000e+00")
        return self.layer("BinaryOp", [self.layer("BinaryOp", [residual], f"0=2 1=1 2={self.beta}"), x], "0=0")

    def text(self):
        a = self.a
        x = self.layer("Input", [])
        if a.pixel_unshuffle:
            x = self.layer("Reorg", [x], f"0={4 // a.scale_factor}")
        first = x = self.conv("conv_first", x)
        for i in range(a.num_basic_blocks):
            block = x
            for j in range(1, a.num_dense_blocks + 1):
                features, convs = [x], a.num_residual_blocks
                for k in range(1, convs + 1):
                    split = f"{features[0]}_s{j}{k}"
                    self.layers.append(f"Split split{len(self.layers)} 1 1 {features[0]} {split}")
                    seen = self.layer("Concat", [split, *features[1:]]) if k > 1 else split
                    features.append(self.conv(f"body.{i}.rdb{j}.conv{k}", seen, active=k < convs))
                x = self.scaled_sum(x, features[-1])
            x = self.scaled_sum(block, x)
        x = self.layer("BinaryOp", [first, self.conv("conv_body", x)], "0=0")
        u = 0
        while f"conv_up{(u := u + 1)}.weight" in self.state:
            if a.use_subpixel_conv:
                x = self.layer("PixelShuffle", [self.conv(f"conv_up{u}", x)], "0=2")
                x = self.layer("ReLU", [x], f"0={self.slope:e}")
            else:
                x = self.layer("Interp", [x], "0=1 1=2.000000e+00 2=2.000000e+00")
                x = self.conv(f"conv_up{u}", x, active=True)
        self.conv("conv_last", self.conv("conv_hr", x, active=True))
        return "\n".join(["7767517", f"{len(self.layers)} {2 * len(self.layers)}", *self.layers, ""])

    def write(self, stem):
        param, weights = stem.with_name(f"{stem.name}.param"), stem.with_name(f"{stem.name}.bin")
        param.write_text(self.text(), "utf-8")
        weights.write_bytes(self.bin)
        return param, weights
