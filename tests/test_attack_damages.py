"""Damaged files in a run: `jaxnas resume` ends with the same result, byte for byte, or with one line that names the way out."""

import re
import shutil

import numpy as np
import pytest

from jaxnas.app import cli

DARTS = ["search", "--strategy=darts", "--strategy.order=first", "--steps=4", "--train-steps=4", "--channels=2", "--batch=16"]
MAIN_JOB = ["search", "--data", "{data}", "--trials", "2", "--train-steps", "6", "--batch", "16"]
DAMAGES = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: max(1, path.stat().st_size // 2)]),
    "flipped": lambda path: path.write_bytes(_flipped(path.read_bytes())),
    "noise": lambda path: path.write_bytes(np.random.default_rng(0).bytes(200)),
    "another kind of text": lambda path: path.write_text("[1, 2]\n"),
    "nested": lambda path: path.write_text("[" * 3000 + "]" * 3000),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}
FILES = {  # of each run: what is damaged, the first that fits
    "darts": (
        *("config.json", "log.jsonl", "result.json", "weights.npz", "export.bin", "network.json", "found/log.jsonl"),
        *("checkpoints/*/*/*", "found/checkpoints/*/*/*", "random/checkpoints/*/*/*"),
    ),
    "main-job": (
        *("config.json", "plan.json", "trials.jsonl", "result.json", "times.json", "weights.npz", "members/search-0.npz"),
        *("members/search-0.npy", "finals/compared.json", "finals/*.npz", "finals/*.npy"),
    ),
}
WAY_OUT = r"set it back|remove |give |make it|start |resume|choose|write "


def _flipped(held: bytes) -> bytes:
    middle = len(held) // 2
    return held[:middle] + bytes([held[middle] ^ 0x10]) + held[middle + 1 :] if held else b"x"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """name -> the directory of a finished run."""
    where = tmp_path_factory.mktemp("damages")
    x = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    np.savez(where / "table.npz", x=x, y=(x[:, 0] * x[:, 1] > 0).astype(int))

    def make(name):
        if not (where / name).exists():
            arguments = DARTS if name == "darts" else [a.format(data=where / "table.npz") for a in MAIN_JOB]
            assert cli.main([*arguments, "--out", str(where / name)]) == 0
        return where / name

    return make


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # of Orbax
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("name", "file"), [(name, file) for name, files in FILES.items() for file in files])
def test_a_damage_is_mended_or_said(whole, tmp_path, capsys, name, file, damage):
    run = tmp_path / "run"
    shutil.copytree(whole(name), run)
    path = sorted(p for p in run.glob(file) if p.is_file())[0]
    DAMAGES[damage](path)
    if not file.startswith(("result", "times", "config")):
        (run / "result.json").unlink()  # as in a run that was cut before its end
    capsys.readouterr()
    code = cli.main(["resume", str(run)])
    err = capsys.readouterr().err
    assert "Traceback" not in err
    if code == 0:
        assert (run / "result.json").read_bytes() == (whole(name) / "result.json").read_bytes()
    else:
        assert code == 2
        assert re.fullmatch(r"jaxnas: [^\n]{20,700}", err.splitlines()[-1]) and re.search(WAY_OUT, err.splitlines()[-1]), err
