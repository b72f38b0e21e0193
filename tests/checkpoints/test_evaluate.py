"""evaluate and compare on a trained checkpoint: the files that they leave, and that settings of quality are heeded."""

import json
from pathlib import Path

import pytest
from PIL import Image

from woundray.checkpoints.compare import compare_checkpoints
from woundray.checkpoints.evaluate import evaluate_checkpoint
from woundray.checkpoints.generate import SamplingOptions
from woundray.config import Config
from woundray.errors import UserError
from woundray.training.checkpoint import write_config
from woundray.training.distributed import DistributedContext
from woundray.training.loop import train
from woundray.training.precompute import Precomputed

OPTIONS = SamplingOptions(6, first_seed=100)


@pytest.fixture(scope="module")
def checkpoint(micro_config: Config, micro_precomputed: Precomputed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "precomputed").mkdir()  # where a study keeps them: `features` is beside
    config = micro_config.with_values({"training.epochs": 1})
    output = folder / "run"
    train(
        config,
        precomputed=micro_precomputed.folder,
        output=output,
        context=DistributedContext.single(),
        report=lambda *_: None,
    )
    return (output / "latest").resolve()


def progress(*_: object) -> None: ...


def with_quality(checkpoint: Path, config: Config, **changes: object) -> None:
    write_config(config.with_values({f"quality.{name}": value for name, value in changes.items()}), checkpoint)


def test_an_evaluation_leaves_its_figures_and_pictures_as_quality_wants_them(
    checkpoint: Path, micro_config: Config, tmp_path: Path
) -> None:
    flat = {"heuristics.check_saturation.min_std_saturation": 1.0}  # refuses every picture
    with_quality(checkpoint, micro_config, **flat, **{"reporting.max_rejected_images_to_save": 4})
    report = evaluate_checkpoint(checkpoint, OPTIONS, data=None, file=tmp_path / "a/report.json", progress=progress)
    values = json.loads((tmp_path / "a/report.json").read_text())
    assert [score["name"] for score in values["scores"]] == [score.name for score in report.scores]
    by_name = {score["name"]: score for score in values["scores"]}
    for part in ("value", "low", "high", "real_baseline", "z"):
        assert by_name["fd_lite0"][part] is not None
    assert values["first_seed"] == 100 and values["pictures"] == 6
    assert values["usable"] == 0 and set(values["fail"]["flat"]) == set(range(100, 106))
    assert len(list((tmp_path / "a/refused").glob("seed_*.png"))) == 4
    assert (tmp_path / "a/grid.png").is_file()
    cache = checkpoint.parents[1] / "features"
    assert len(list(cache.glob("*.safetensors"))) == 4  # generated, training, held out, views of the training ones
    known = {path.name for path in cache.iterdir()}

    silent = {"reporting.save_rejected_images": False, "reporting.save_rejection_report": False}
    with_quality(checkpoint, micro_config, **flat, **silent, **{"ssim.enabled": False, "fid.enabled": False})
    again = evaluate_checkpoint(checkpoint, OPTIONS, data=None, file=tmp_path / "b/report.json", progress=progress)
    values = json.loads((tmp_path / "b/report.json").read_text())
    assert "usable" not in values and not (tmp_path / "b/refused").exists()
    assert {path.name for path in cache.iterdir()} == known, "read, not measured again"
    assert [score.value for score in again.scores] == [score.value for score in report.scores]
    assert all(score.threshold is None for score in again.scores if score.name in ("ssim_nn", "fd_lite0"))

    with_quality(checkpoint, micro_config, **{"caching.enabled": False, "filtering.enabled": False, **flat})
    for path in cache.iterdir():
        path.unlink()
    assert evaluate_checkpoint(
        checkpoint, OPTIONS, data=None, file=tmp_path / "c/report.json", progress=progress
    ).usable.all()
    assert not list(cache.iterdir())


def test_checkpoints_are_compared_on_the_same_seeds(checkpoint: Path, micro_config: Config, tmp_path: Path) -> None:
    with_quality(checkpoint, micro_config)
    pair = [("trial 1", checkpoint), ("trial 2", checkpoint)]
    found = compare_checkpoints(pair, OPTIONS, data=None, out=tmp_path, progress=progress)
    with Image.open(tmp_path / "compare.png") as picture:
        side = micro_config.model.resolution
        left, top = picture.width - 6 * (side + 2) + 2, picture.height - 2 * (side + 2) + 2
        gray = picture.convert("L")
        for row in range(2):  # a name beside each, and seeds above
            beside = gray.crop((0, top + row * (side + 2), left, top + row * (side + 2) + side))
            assert beside.getextrema()[0] < 128
        assert gray.crop((left, 0, picture.width, top)).getextrema()[0] < 128
    rows = {row.name: row for row in found}
    assert {"fd_lite0", "kid_lite0", "copy_rate"} <= rows.keys()
    assert all(row.differences[0][0] == 0 for row in found)


def test_what_was_trained_on_all_photographs_has_no_score(
    checkpoint: Path, micro_config: Config, tmp_path: Path
) -> None:
    write_config(micro_config.with_values({"validation.share": 0.0}), checkpoint)
    with pytest.raises(UserError, match="trained on all photographs: none is left to score it against"):
        evaluate_checkpoint(checkpoint, OPTIONS, data=None, file=tmp_path / "report.json", progress=progress)
