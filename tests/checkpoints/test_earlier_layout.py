"""Studies of woundray 0.1 open: their files get the names of this version."""

import json
from pathlib import Path

from woundray.checkpoints.earlier_layout import upgrade_layout, upgrade_layout_of

NAMES = ("bank.safetensors", "baseline.json", "baseline.png", "baseline_new.json", "split.json")
TODAY = {
    "latent_cache.safetensors",
    "base_model_scores.json",
    "base_model.png",
    "base_model_new_seeds.json",
    "split.json",
}


def earlier(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_text(name)
    (folder / "reference.json").write_text(json.dumps({"floor": {"mean": 4.0}, "seed": 1}))


def test_precomputed_data_of_0_1_get_the_names_of_today(tmp_path: Path) -> None:
    folders = [tmp_path / part for part in ("", "folds/1", "refit/trial_0001")]
    for folder in folders:
        earlier(folder / "materials")
    (tmp_path / "events.jsonl").touch()
    upgrade_layout_of(tmp_path / "trials/trial_0001/epoch_0001")
    for folder in folders:
        assert {path.name for path in (folder / "precomputed").iterdir()} == TODAY | {"reference.json"}
        assert json.loads((folder / "precomputed/reference.json").read_text()) == {
            "real_baseline": {"mean": 4.0},
            "seed": 1,
        }
        assert not (folder / "materials").exists()
    upgrade_layout(tmp_path)  # changes nothing


def test_an_upgrade_that_was_interrupted_is_completed(tmp_path: Path) -> None:
    earlier(tmp_path / "materials")
    (tmp_path / "materials/bank.safetensors").rename(tmp_path / "materials/latent_cache.safetensors")
    upgrade_layout(tmp_path)
    assert {path.name for path in (tmp_path / "precomputed").iterdir()} > TODAY
