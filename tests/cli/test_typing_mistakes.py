"""What is mistyped is answered before anything slow is imported, and leaves nothing behind."""

import subprocess
import sys
from pathlib import Path

import pytest

_RUN = """
import sys
from importlib import import_module
command, *words = sys.argv[1:]
sys.argv = ["x", *words]
try:
    import_module(f"woundray.{command}").main()
finally:
    slow = {"torch", "ray", "mlflow", "diffusers"} & sys.modules.keys()
    assert not slow, slow
"""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("tune --resume nosuch", "--resume: neither nosuch nor woundray-runs/nosuch is a study"),
        ("tune --resume mystduy", "did you mean mystudy?"),
        ("tune --resume best", "--resume: woundray-runs/best is a checkpoint; give the study that it is of"),
        ("generate --from mystudy", "--from: woundray-runs/mystudy is a study that has not ended"),
        ("prepare --phantoms 2 --out woundray-runs/mystudy/events.jsonl/x", "Not a directory; give another path"),
        ("tune --study.name mystudy", "mystudy is a study already"),
        ("tune --study.begin_with nosuch", "study.begin_with: neither nosuch nor"),
        ("tune --data nosuch", "--data: nosuch is no folder"),
        ("tune --space nosuch", "study.space: nosuch is not one of"),
        ("tune --model.base nosuch", "model.base: nosuch is neither one of"),
        ("tune --study.name a/b", "study.name: a/b is a path"),
        ("tune --validation.share 0", "validation.share: 0 holds nobody out"),
        ("train --resume nosuch", "--resume: neither nosuch nor"),
        ("train --data nosuch", "--data: nosuch is no folder"),
        ("augment --data nosuch", "--data: nosuch is no folder"),
        ("generate --from nosuch", "--from: neither nosuch nor"),
        ("generate --from woundray-runs", "--from: woundray-runs is no checkpoint"),
        ("generate --from models:/nosuch@champion", "no database"),
        ("generate --again nosuch.csv", "--again: there is no file nosuch.csv"),
        ("evaluate --from nosuch", "--from: neither nosuch nor"),
        ("export --from nosuch --format kohya --out x.safetensors", "--from: neither nosuch nor"),
        ("compare a b", "--from: neither a nor"),
        ("compare --study nosuch", "neither nosuch nor woundray-runs/nosuch is a study or run"),
        ("report nosuch", "neither nosuch nor woundray-runs/nosuch is a study or run"),
        ("sync mystudi", "did you mean mystudy?"),
        ("prepare --raw nosuch --out x", "--raw: nosuch is no folder"),
        ("fetch nosuch", "fetch: nosuch is not one of"),
        ("tune --learning_rate 1", "did you mean --training.learning_rate or --effect.learning_rate?"),
        ("tune --help qualty", "did you mean quality?"),
    ],
)
def test_a_mistake_is_told_at_once(line: str, message: str, tmp_path: Path) -> None:
    study = tmp_path / "woundray-runs/mystudy"
    study.mkdir(parents=True)
    (study / "events.jsonl").touch()
    checkpoint = study / "trials/trial_0001/epoch_0001"
    checkpoint.mkdir(parents=True)
    for name in ("run.json", "config.yaml"):
        (checkpoint / name).touch()
    (study.parent / "best").symlink_to("mystudy/trials/trial_0001/epoch_0001")
    before = {*tmp_path.rglob("*")}
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *line.split()], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert {*tmp_path.rglob("*")} == before
