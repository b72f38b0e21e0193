"""Cross-validation scores a finalist on every photograph once, and a refit trains on all of them."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest
import torch

from woundray.checkpoints.find import config_of
from woundray.checkpoints.generate import NEW_SEEDS_FILE
from woundray.config import Config
from woundray.results.reference_scores import ReferenceScores, reference_scores
from woundray.results.study import StudyResults
from woundray.results.trials import TrialResult
from woundray.search.cross_validation import FinalistScorer, mean_over_folds, refit
from woundray.training.checkpoint import read_progress
from woundray.training.distributed import DistributedContext
from woundray.training.loop import train
from woundray.training.precompute import open_precomputed, precompute
from woundray.weights.diffusers_layout import WEIGHTS_NAME

CPU = torch.device("cpu")


def train_here(config: Config, precomputed: Path, output: Path) -> None:
    """Train in this process instead of on a cluster."""
    train(config, precomputed=precomputed, output=output, context=DistributedContext.single(), report=lambda *_: None)


def progress(*_: object) -> None: ...


def files(folder: Path) -> dict[str, set[str]]:
    split = json.loads((folder / "split.json").read_text())
    return {side: set(split[side]["files"]) for side in split}


def test_a_finalist_is_judged_by_every_photograph_and_refitted_on_all(micro_config: Config, tmp_path: Path) -> None:
    study, trial = tmp_path, tmp_path / "trials/a1"
    config = micro_config.with_values({"validation.folds": 2, "training.epochs": 2, "validation.weights": "both"})
    precomputed = precompute(config, study / "precomputed", device=CPU, progress=progress)
    train_here(config, precomputed.folder, trial)
    checkpoint = (trial / "epoch_0001").resolve()  # its best, let us say

    # the other fold holds out what this one trained on
    folds = FinalistScorer(config, precomputed, study, CPU, progress, fit=train_here)
    pictures, scores = folds(checkpoint)
    assert folds.folds == 2 and pictures == 2 * 2 * config.validation.pictures
    sides = [files(study / "precomputed"), files(study / "folds/1/precomputed")]
    assert sides[0]["train"] == sides[1]["validation"] and sides[0]["validation"] == sides[1]["train"]
    again = study / "folds/1/a1/latest"
    assert read_progress(again).epoch == 1
    assert read_progress(again).history[0]["learning_rate"] == read_progress(checkpoint).history[0]["learning_rate"]
    assert scores["folds"] == 2 and scores["fd_lite0_sd_of_folds"] > 0
    written = (again / WEIGHTS_NAME).stat().st_mtime_ns
    assert folds(checkpoint)[1] == scores
    assert (again / WEIGHTS_NAME).stat().st_mtime_ns == written, "what was trained is not trained again"

    # reference scores have as many images as the score, with the same seeds
    new = 2 * config.validation.pictures
    trial_of = TrialResult("a1", 1, "finished", {}, best_score=9.0, final=scores)
    results = StudyResults(study, config, (trial_of,), trial_of, ended=True)
    at = reference_scores(trial_of, results)
    assert at is not None and at.real_baseline.n_wanted == new
    assert at.real_baseline == precomputed.reference.at(new).real_baseline
    of_folds = [json.loads((folder / NEW_SEEDS_FILE).read_text()) for folder in (
        precomputed.folder, study / "folds/1/precomputed",
    )]  # fmt: skip
    assert {fold["pictures"] for fold in of_folds} == {new}
    assert at.base == mean(fold["scores"]["fd_lite0"] for fold in of_folds)  # of the patients that finalists met
    assert of_folds[0]["scores"]["fd_lite0"] != of_folds[1]["scores"]["fd_lite0"]
    before = reference_scores(replace(trial_of, final=None), results)
    assert before == ReferenceScores(precomputed.baseline["fd_lite0"], precomputed.reference.real_baseline)
    by_loss = replace(results, config=config.with_values({"metrics.objective": "validation_loss"}))
    assert reference_scores(trial_of, by_loss) is None

    # a refit trains on both sides, with the weights that were better, and scores nothing
    metrics = next(entry for entry in read_progress(checkpoint).history if entry["epoch"] == 1)
    best = TrialResult("a1", 1, "finished", {}, best_epoch=1, metrics=metrics, checkpoint=checkpoint)
    refitted = refit(StudyResults(study, config, (best,), best, ended=True), CPU, progress, train_here)
    assert refitted == (study / "refit/a1/run/epoch_0001").resolve()
    everybody = files(study / "refit/a1/precomputed")
    assert everybody == {"train": sides[0]["train"] | sides[0]["validation"], "validation": set()}
    assert open_precomputed(study / "refit/a1/precomputed").baseline == {}
    [entry] = read_progress(refitted).history
    assert not {name for name in entry if "fd_" in name or "copy" in name or "validation" in name}
    assert config_of(refitted).validation.weights == ("ema" if metrics["ema"] else "raw")
    assert (study / "refit/a1/run/best").resolve() == refitted and (refitted / "grid.png").is_file()


def test_the_mean_over_folds_keeps_the_worst_flag() -> None:
    scores = [{"fd_lite0": 60.0, "copies_flag": 0.0}, {"fd_lite0": 80.0, "copies_flag": 1.0}]
    found = mean_over_folds(scores, "fd_lite0")
    assert found == {
        "fd_lite0": 70.0, "copies_flag": 1.0, "folds": 2.0, "fd_lite0_sd_of_folds": pytest.approx(200**0.5),
    }  # fmt: skip
    assert mean_over_folds(scores[:1], "fd_lite0") == scores[0]
