"""Put a trained model into the package: python scripts/bundle.py esrgan-lite model.pth configs/lite_x4.json.

The weights become float16. The configuration of the run becomes part of the file, so that a model tells how it was
trained; where things were on that machine is replaced by what the given configuration has there. What else differs from
it is shown.
"""

import json
import sys
from pathlib import Path

import esrgan
from esrgan.config import differences
from esrgan.pretrained import MODELS
from esrgan.weights import save_file

name, model, config = sys.argv[1:]
target = Path(esrgan.__file__).parent / "pretrained" / f"{name}.safetensors"
shipped = json.loads(esrgan.load_config(config).model_dump_json())
generator = esrgan.load_generator(Path(model).resolve())
hparams = generator.hparams
for key in ("cache_dir", "data_root", "num_workers", "keep_checkpoints", "logging"):
    hparams[key] = shipped[key]
hparams["perceptual_loss"]["weights"] = shipped["perceptual_loss"]["weights"]
for stage in ("pretraining", "training"):
    for key in ("train_datasets", "val_datasets"):
        hparams[stage][key] = shipped[stage][key]
params = {key: value.half() for key, value in generator.state.items()}
about = {
    "name": name,
    "licence": MODELS[name].licence,
    "stage": generator.stage,
    "alpha": generator.alpha,
    "hparams": hparams,
}
save_file(target, {"params": params, **about})
print(f"{target}: {target.stat().st_size / 1e6:.2f} MB, {esrgan.load_generator(target).describe()}")
print("\n".join(["other than in the configuration:", *differences(shipped, hparams)]))
