"""Add a public ncnn model to the package: python scripts/bundle_ncnn.py NAME FILE.param LICENCE NOTICE.

The tensors become float16 where that is exact, as the kernels of most ncnn files are, and stay float32 elsewhere, so
the bundled model computes what the file does.
"""

import argparse
from pathlib import Path

import torch

import esrgan
from esrgan.weights import save_file

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("name", help="name in the catalogue")
parser.add_argument("model", type=Path, help=".param of the model")
parser.add_argument("licence", help="SPDX identifier")
parser.add_argument("notice", help="copyright notice")
args = parser.parse_args()
content = esrgan.load_generator(args.model).to_dict()
halves = {name: value.half() for name, value in content["params"].items()}
content["params"] = {
    name: halves[name] if torch.equal(halves[name].float(), value) else value
    for name, value in content["params"].items()
}
content |= {"name": args.name, "licence": args.licence, "notice": args.notice}
save_file(Path(esrgan.__file__).parent / "pretrained" / f"{args.name}.safetensors", content)
