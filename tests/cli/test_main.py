"""The main parser with versions and commands."""

import contextlib
import io
import sys
from importlib.metadata import version

import pytest
import torch

from esrgan.cli import main, make_parser


def test_version_names_pytorch_and_cuda(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    cuda = torch.version.cuda or "none"
    expected = f"esrgan {version('esrgan')}, torch {torch.__version__}, CUDA {cuda}, Python {sys.version.split()[0]}\n"
    assert capsys.readouterr().out == expected


def test_full_parser_contains_every_command():
    parser = make_parser(with_arguments=True)
    options = {"inference": "alpha", "bulk": "address", "interpolate": "mix", "export": "half", "demo": "port"}
    for command, option in options.items():
        with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as text:
            parser.parse_args([command, "--help"])
        assert f"--{option}" in text.getvalue()
