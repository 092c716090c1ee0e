"""``esrgan completion``."""

import shutil
import subprocess

import pytest

from esrgan.cli import main
from esrgan.pretrained import MODELS


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["esrgan", "inf"], {"inference", "info"}),
        (["esrgan", "inference", "--out"], {"--out-dir", "--outscale"}),
        (["esrgan", "inference", "--precision", "b"], {"bf16"}),
        (["esrgan", "info", "mod"], {"model.pth"}),
        (["esrgan", "models", "realesrgan-x4"], {"realesrgan-x4plus", "realesrgan-x4plus-anime"}),
        (["esrgan", "prepare", "set"], {"set5", "set14"}),
        (
            ["esrgan", "inference", "-m", "esr"],
            {"esr.pth"} | {name for name in MODELS if name.startswith("esr")},
        ),
        (["esrgan", "compare", "-m", "esrgan-l"], {"esrgan-lite", "esrgan-lite-psnr"}),
        (["esrgan", "export", "esrgan-l"], {"esrgan-lite", "esrgan-lite-psnr"}),
        (["esrgan", "export", "--names", "e"], {"esrgan-new", "esrgan-old", "earlier"}),
        (["esrgan", "interpolate", "--images", "model.pth", "i/o"], {"i/one.png"}),
        (["esrgan", "inference", "-o", ""], {"i"}),
    ],
)
def test_bash_completion(tmp_path, capsys, words, expected):
    (tmp_path / "i").mkdir()
    for name in ("model.pth", "esr.pth", "i/one.png"):
        (tmp_path / name).touch()
    assert main(["completion", "bash"]) == 0
    (tmp_path / "completion.sh").write_text(capsys.readouterr().out)
    quoted = " ".join(words)
    script = (
        f"source completion.sh; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _shtab_esrgan; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == expected, done.stderr
