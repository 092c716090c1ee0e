"""Put a trained model into the package: python scripts/bundle.py esrgan-lite model.pth configs/lite_x4.json.

The weights become float16. The configuration must be that of the run but for the places of things; it becomes part of
the file, so that a model tells how it was trained.
"""

import json
import sys
from pathlib import Path

import esrgan
from esrgan.config import differences
from esrgan.pretrained import MODELS
from esrgan.weights import save_file

PLACES = ("_datasets", "cache_dir", "data_root", "num_workers", "keep_checkpoints", "weights", "logging.")

name, model, config = sys.argv[1:]
target = Path(esrgan.__file__).parent / "pretrained" / f"{name}.safetensors"
shipped = json.loads(esrgan.load_config(config).model_dump_json())
generator = esrgan.load_generator(Path(model).resolve())
unlike = [line for line in differences(generator.hparams, shipped) if not any(place in line for place in PLACES)]
if unlike:
    sys.exit(f"{model} was not trained by {config}:\n" + "\n".join(unlike))
params = {key: value.half() for key, value in generator.state.items()}
about = {"name": name, "licence": MODELS[name].licence, "stage": generator.stage, "hparams": shipped}
save_file(target, {"params": params, **about})
print(f"{target}: {target.stat().st_size / 1e6:.2f} MB, {esrgan.load_generator(target).describe()}")
