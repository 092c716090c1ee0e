"""Loading a file returns a configuration or reports all problems in order."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esrgan.config import Config, load
from esrgan.console import show_messages
from esrgan.errors import ConfigError, Problem
from tests.helpers.config_files import CONFIGS, DEFAULTS, messages, problems, write


def test_missing_files_and_folders_are_reported(tmp_path: Path) -> None:
    (missing,) = problems(tmp_path / "x.json")
    assert missing.place == str(tmp_path / "x.json")
    assert str(missing).endswith(
        "expected a JSON file, got no file of that name; check the path; the repository has examples in configs/"
    )
    (folder,) = problems(tmp_path)
    assert folder.got == "an error (Is a directory)"
    (nameless,) = problems(Path("a\0b"))
    assert nameless.expected == "a JSON file"


def test_all_problems_are_reported_in_file_order(tmp_path: Path) -> None:
    content = """{
  "$schema": 5,
  "scale_factor": 4,
  "batch_size": "16",
  "g_lr": 1e-4,
  "pretraining": {
    "cr_patch_size": [130, 128],
    "lr": NaN,
    "lr": 0,
    "hard_transforms": "yes",
  },
  "training": {
    "num_epoch": 3,
    "num_steps": 5,
    "train_datasets": ["div2k", 3, {"hr": "a", "sr": "b"}],
    "g_sched_steps": [3, 2],
    "d_sched_steps": [3, "a"]
  },
  "generator": 7,
  "perceptual_loss": {"vgg_type": "vgg13"},
  "logging": {"wandb": "on"}
}"""
    places = [problem.split(": expected")[0] for problem in messages(tmp_path, b"\xef\xbb\xbf" + content.encode())]
    assert places == [
        "x.json:1:1",
        "x.json:2:3: $schema",
        "x.json:4:3: batch_size",
        "x.json:5:3: g_lr",
        "x.json:7:5: pretraining.cr_patch_size",
        "x.json:9:5: pretraining.lr",  # twice: for the duplicate key and for its value
        "x.json:9:5: pretraining.lr",
        "x.json:10:5: pretraining.hard_transforms",
        "x.json:10:29",
        "x.json:14:5: training.num_steps",
        "x.json:15:33: training.train_datasets[1]",
        "x.json:15:48: training.train_datasets[2].sr",
        "x.json:16:5: training.g_sched_steps",
        "x.json:17:26: training.d_sched_steps[1]",
        "x.json:19:3: generator",
        "x.json:20:3: perceptual_loss.layer_weights.conv5_4",
        "x.json:21:15: logging.wandb",
    ]


def test_keys_named_like_pydantic_tags_are_ordinary_keys(tmp_path: Path) -> None:
    content = '{"[key]": 1, "name": 1, "training": {"val_datasets": [{"hr": "a", "folders": 1}]}}'
    places = [text.split(": expected")[0] for text in messages(tmp_path, content)]
    assert places == ['x.json:1:2: "[key]"', "x.json:1:14: name", "x.json:1:67: training.val_datasets[0].folders"]


def test_invalid_keys_cause_no_further_conflicts(tmp_path: Path) -> None:
    """The patch would conflict with the default scale 4, but the intended scale is unknown."""
    (only,) = messages(tmp_path, '{"scale_factor": 3, "training": {"cr_patch_size": [129, 129]}}')
    assert only.startswith("x.json:1:2: scale_factor: ")
    (only,) = messages(tmp_path, '{"perceptual_loss": 1, "training": {"cr_patch_size": [8, 8]}}')
    assert only.startswith("x.json:1:2: perceptual_loss: ")


# Fuzzing: any content yields a configuration or a ConfigError.

DEFAULT_TEXT = (CONFIGS / "esrgan_default.json").read_text()
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


def assert_loads_or_explains(path: Path) -> None:
    try:
        config = load(path)
        assert load(write(path.parent, json.dumps(config.to_dict()))) == config
        return
    except ConfigError as error:
        found = error.problems
    assert found
    for problem in found:
        assert isinstance(problem, Problem)
        assert problem.expected
        assert problem.got
        assert re.fullmatch(r".*x\.json:\d+:\d+(: .+)?", problem.place)
        assert str(problem).encode()  # can be printed
        assert "\n" not in str(problem)


def test_old_keys_of_the_earlier_framework_are_ignored_with_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, '{"scale_factor": 2, "network_interpolation_alpha": 0.8}')
    with show_messages():
        assert load(path) == Config(scale_factor=2)
    ignored = "ignoring network_interpolation_alpha, a key of the earlier framework: esrgan interpolate --alpha blends"
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{path}: {ignored}")
    for unknown in ("network_interpolation_alfa", "interpolation_alpha"):
        (message,) = messages(tmp_path, f'{{"{unknown}": 0.8}}'.encode())
        assert f'expected a known key, got "{unknown}"' in message
    assert "expected a known key" in messages(tmp_path, b'{"training": {"network_interpolation_alpha": 1}}')[0]


@given(content=st.binary() | st.text('{}[],:"\\ 01eE-.NanInfityul\n').map(str.encode))
def test_random_text_loads_or_is_explained(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert_loads_or_explains(write(tmp_path_factory.getbasetemp(), content))


@given(data=st.data())
def test_mutated_text_loads_or_is_explained(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = DEFAULT_TEXT
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = start + data.draw(st.integers(0, 8))
        text = text[:start] + data.draw(st.text('{}[],:"0-e.tN \n', max_size=4)) + text[end:]
    assert_loads_or_explains(write(tmp_path_factory.getbasetemp(), text))


@settings(max_examples=200)
@given(data=st.data())
@pytest.mark.slow
def test_mutated_values_load_or_are_explained(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    changed = json.loads(json.dumps(DEFAULTS))
    for _ in range(data.draw(st.integers(1, 3))):
        owner: Any = changed
        key = data.draw(st.sampled_from(sorted(owner)))
        while isinstance(owner[key], (dict, list)) and owner[key] and data.draw(st.booleans()):
            owner = owner[key]
            key = data.draw(st.sampled_from(sorted(owner) if isinstance(owner, dict) else range(len(owner))))
        if isinstance(owner, dict) and data.draw(st.booleans()):
            key = data.draw(st.text(max_size=8))
        owner[key] = data.draw(json_values)
    assert_loads_or_explains(write(tmp_path_factory.getbasetemp(), json.dumps(changed)))
