"""Add a trained model to the package: python scripts/bundle.py esrgan-lite model.pth configs/lite_x4.json.

The weights are converted to float16. The configuration of the run is stored in the file, to document how the model was
trained. Its machine-specific paths are replaced by those of the given configuration, and all other differences are
printed. Mean colours drift in the GAN stage; the bias of the last layer can be shifted to keep those of a folder of LR
images.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

import esrgan
from esrgan import images
from esrgan.config import describe_changes
from esrgan.pretrained import MODELS
from esrgan.weights import save_file

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("name", choices=[name for name, model in MODELS.items() if model.source is None])
parser.add_argument("model", type=Path, help="generator file of a training run")
parser.add_argument("config", help="configuration file that is shipped with the model")
parser.add_argument("--keep-colour", type=Path, metavar="FOLDER", help="folder of LR images whose mean colour is kept")
args = parser.parse_args()
target = Path(esrgan.__file__).parent / "pretrained" / f"{args.name}.safetensors"
shipped = json.loads(esrgan.load_config(args.config).model_dump_json())
generator = esrgan.load_generator(args.model.resolve())
hparams = generator.hparams
for key in ("cache_dir", "data_root", "num_workers", "keep_checkpoints", "logging"):
    hparams[key] = shipped[key]
hparams["perceptual_loss"]["weights"] = shipped["perceptual_loss"]["weights"]
for stage in ("pretraining", "training"):
    for key in ("train_datasets", "val_datasets"):
        hparams[stage][key] = shipped[stage][key]
if args.keep_colour:
    upscaler = esrgan.Upscaler.from_file(args.model.resolve(), precision="fp32")
    photos = [images.read_pixels(path, 3) for path in images.find_images([args.keep_colour])]
    drift = np.mean([upscaler(photo).mean((0, 1)) - photo.mean((0, 1)) for photo in photos], axis=0)
    print(f"mean colour drift of {len(photos)} images: {', '.join(f'{each:+.2f}' for each in drift)} levels, corrected")
    last = [name for name, layer in generator.build().named_modules() if isinstance(layer, torch.nn.Conv2d)][-1]
    bias = generator.state[f"{last}.bias"]
    # The last layer of a compact network computes all pixels of a channel, then those of the next channel.
    bias -= torch.from_numpy(drift / 255).repeat_interleave(len(bias) // len(drift))
params = {key: value.half() for key, value in generator.state.items()}
about = {
    "name": args.name,
    "licence": MODELS[args.name].licence,
    "stage": generator.stage,
    "alpha": generator.alpha,
    "hparams": hparams,
}
save_file(target, {"params": params, **about})
print(f"{target}: {target.stat().st_size / 1e6:.2f} MB, {esrgan.load_generator(target).describe()}")
print("\n".join(["differences from the shipped configuration:", *describe_changes(shipped, hparams)]))
