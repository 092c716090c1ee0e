r"""Ablation of the lite recipe: short runs that differ in one setting, evaluated in the same way.

docs/explanation/bundled_models.md has the results.

    python benchmarks/ablation.py --photos photos --teacher teacher --start lite_start.pth \
        --vgg-weights vgg16.safetensors -o ablation

Run the same command again to resume after an interruption. Runs of the GAN stage start from the bundled
esrgan-lite-psnr; scripts/teacher.py creates the teacher images.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import esrgan
from esrgan import images
from esrgan.evaluation import DatasetEvaluation, EvaluationOptions

METRICS = ["psnr", "niqe", "vgg16", "vggstats"]
ROOT = Path(__file__).resolve().parent.parent
PSNR_STEPS, GAN_STEPS = 200, 360
CROP = 384  # px; the centre crop of each photograph that is evaluated, or less where it is smaller

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--photos", type=Path, required=True, help="folder that contains train and val")
parser.add_argument("--teacher", type=Path, required=True, help="folder that contains hr and lr")
parser.add_argument("--start", type=Path, required=True, help="6-block generator from which the PSNR stage starts")
parser.add_argument("--vgg-weights", type=Path, required=True, help="weights of VGG16")
parser.add_argument("-o", "--out-dir", type=Path, required=True, help="folder for models and crops")
parser.add_argument("-a", "--autocast", action="store_true", help="train the GAN stage in bfloat16, as train.py -a")
args = parser.parse_args()
photo_datasets = [{"hr": str((args.photos / "train").resolve())}]
teacher_datasets = [{key: str((args.teacher / key).resolve()) for key in ("hr", "lr")}]

# Each run has a name, changes to the section of its stage (None removes a key) and other changes. "scratch" runs start
# untrained.
PSNR_RUNS = {
    "psnr-base": ({}, {}),
    "psnr-patch-64": ({"cr_patch_size": [64, 64]}, {"batch_size": 16}),
    "psnr-patch-192": ({"cr_patch_size": [192, 192]}, {"batch_size": 2}),
    "psnr-no-ema": ({}, {"ema_decay": 0}),
    "psnr-constant-rate": ({"sched_gamma": 1}, {}),
    "psnr-half-rate": ({"lr": 1e-4}, {}),
    "psnr-scratch-small-init": ({}, {"generator": {"small_init": "all"}}),
    "psnr-scratch-small-trunk": ({}, {"generator": {"small_init": "trunk"}}),
}
GAN_RUNS = {
    "gan-base": ({}, {}),
    "gan-teacher": ({"train_datasets": teacher_datasets}, {}),
    "gan-adversarial-x4": ({"g_adversarial_loss_scaling": 0.12}, {}),
    "gan-no-adversarial": ({"g_adversarial_loss_scaling": 0}, {}),
    "gan-conv5_3": ({}, {"perceptual_loss": {"layer_weights": {"conv5_3": 0.15}}}),
    "gan-patch-192": ({"cr_patch_size": [192, 192]}, {"batch_size": 2}),
    "gan-vanilla": ({"gan_objective": "vanilla"}, {}),
    "gan-lsgan": ({"gan_objective": "lsgan"}, {}),
    "gan-hinge": ({"gan_objective": "hinge"}, {}),
    "gan-artifact": ({"g_artifact_loss_scaling": 1.0}, {}),
    "gan-consistency": ({"g_consistency_loss_scaling": 20.0}, {}),
    "gan-pause": ({"d_pause_below": 0.3}, {}),
    "gan-warmup-ramp": ({"warmup_steps": 60, "g_adversarial_ramp_steps": 180}, {}),
    "gan-cosine": ({"sched": "cosine", "g_sched_steps": None, "d_sched_steps": None}, {}),
    "gan-adamw": ({"weight_decay": 0.01}, {}),
    "gan-conv4_3": ({}, {"perceptual_loss": {"layer_weights": {"conv4_3": 0.02}}}),
}

args.out_dir.mkdir(parents=True, exist_ok=True)

base = json.loads((ROOT / "configs/lite_x4.json").read_text())
base |= {"$schema": str(ROOT / "configs/schema.json"), "batch_size": 4, "validation_interval": 10000}
base["logging"] = {"interval": 50, "wandb": "disabled", "tensorboard": False, "num_images": 0}
base["perceptual_loss"]["weights"] = str(args.vgg_weights.resolve())
base["pretraining"] = {
    "num_epoch": None,
    "num_steps": PSNR_STEPS,
    "cr_patch_size": [128, 128],
    "lr": 2e-4,
    "sched_step": PSNR_STEPS // 2,
    "sched_gamma": 0.5,
    "train_datasets": photo_datasets,
    "val_datasets": ["skimage"],  # small, because test.py evaluates the models afterwards
}
base["training"] = {
    "num_epoch": None,
    "num_steps": GAN_STEPS,
    "cr_patch_size": [128, 128],
    "g_lr": 2e-4,
    "d_lr": 1e-4,
    "g_sched_steps": [GAN_STEPS // 2],
    "d_sched_steps": [GAN_STEPS // 2],
    "g_content_loss_scaling": 0.4,
    "g_adversarial_loss_scaling": 0.03,
    "train_datasets": photo_datasets,
    "val_datasets": base["pretraining"]["val_datasets"],
}
base["perceptual_loss"]["layer_weights"]["conv5_3"] = 0.15


def render_table(dataset: DatasetEvaluation) -> str:
    """Return the scores of all runs as Markdown, with intervals of the differences from the first run.

    Significant differences are bold.
    """
    lines = [f"| {dataset.dataset} | {' | '.join(metric.label for metric in dataset.metrics)} |"]
    lines.append(f"|---|{'--:|' * len(dataset.metrics)}")
    base = dataset.methods[1]
    for method in dataset.methods:
        cells = [method.partition("_RRDB_")[0]]
        for metric in dataset.metrics:
            cells.append(metric.format(dataset.mean(method, metric)[0]))
            if difference := dataset.differences.get((method, base), {}).get(metric.name):
                interval = f"{metric.format(difference.low)} to {metric.format(difference.high)}"
                cells[-1] += f" (**{interval}**)" if difference.is_significant else f" ({interval})"
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def run(*arguments: object) -> None:
    """Run one of the scripts with this Python."""
    subprocess.run([sys.executable, *map(str, arguments)], check=True)


stages = (("pretraining", "PSNR", 0.99, PSNR_RUNS), ("training", "ESRGAN", 0.99, GAN_RUNS))
for stage, kind, ema_decay, runs in stages:
    for name, (changes, other_changes) in runs.items():
        model = args.out_dir / f"{name}_RRDB_{kind}_x4.pth"
        if model.exists():
            continue
        config = json.loads(json.dumps(base | {"ema_decay": ema_decay}))
        config[stage] = {key: value for key, value in (config[stage] | changes).items() if value is not None}
        for key, value in other_changes.items():
            config[key] = value if not isinstance(value, dict) else config[key] | value
        path = args.out_dir / f"{name}.json"
        path.write_text(json.dumps(config, indent=2))
        start = args.start if stage == "pretraining" else "esrgan-lite-psnr"
        options = ["--stage", stage, "-o", args.out_dir, "--run-name", name, "--resume", "auto"]
        options += ["-a"] if args.autocast and stage == "training" else []
        run(ROOT / "train.py", path, *options, *([] if "scratch" in name else ["-l", start]))
crops = args.out_dir / "val"
crops.mkdir(exist_ok=True)
for path in images.find_images([args.photos / "val"]):
    photo = images.read_pixels(path, 3)
    height, width = (min(CROP, length) // 4 * 4 for length in photo.shape[:2])
    top, left = (photo.shape[0] - height) // 2, (photo.shape[1] - width) // 2
    images.write_pixels(crops / f"{path.stem}.png", photo[top : top + height, left : left + width], overwrite=True)
options = EvaluationOptions(vgg_weights=args.vgg_weights)
for kind, runs in (("PSNR", PSNR_RUNS), ("ESRGAN", GAN_RUNS)):
    models = [str(args.out_dir / f"{name}_RRDB_{kind}_x4.pth") for name in runs]
    for dataset in esrgan.evaluate(models, ["skimage", str(crops)], METRICS, options).datasets:
        print(f"\n{render_table(dataset)}", flush=True)
