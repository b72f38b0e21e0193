"""`report.html` of a study, and `report_without_photographs.html`, the same without photographs of patients."""

import base64
import io
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from PIL import Image

from woundray.evaluation.verdict import verdict_of
from woundray.reporting import charts
from woundray.reporting.score_descriptions import describe
from woundray.results.reference_scores import ReferenceScores, reference_scores
from woundray.results.study import FEWEST_TRIALS, StudyResults, read_study
from woundray.results.trials import TrialResult
from woundray.system.atomic_files import write_text
from woundray.tracking.mlflow_sync import versions
from woundray.training.checkpoint import GRIDS

_WIDEST_PX = 1200  # of an image in the report
_QUALITY = 88  # of WebP


@dataclass(frozen=True)
class EpochGrid:
    """Image grid of one epoch of the best trial; `kept`: it is the best epoch."""

    epoch: int
    score: float
    picture: str
    kept: bool


def write_report(folder: Path) -> tuple[Path, Path]:
    """Write `report.html` and `report_without_photographs.html` into a study's folder.

    For drawn phantoms both show everything.

    Raises:
        UserError: no study, or one without trials.
    """
    study = read_study(folder)
    files = study.folder / "report.html", study.folder / "report_without_photographs.html"
    for file, with_photographs in zip(files, (True, not study.of_patients), strict=True):
        write_text(render(study, with_photographs=with_photographs), file)
    return files


def write_charts(folder: Path, out: Path) -> None:
    """Write `learning_curves.svg`, `parallel_coordinates.svg` and, with enough trials, `importance.svg` of a study."""
    study = read_study(folder)
    out.mkdir(parents=True, exist_ok=True)
    drawn = {
        "learning_curves": _curves(study),
        "parallel_coordinates": charts.parallel_coordinates(study.trials, study.best, study.objective),
        "importance": charts.importance(study.importance) if study.importance else "",
    }
    for name, chart in drawn.items():
        if chart:
            (out / f"{name}.svg").write_text(chart, encoding="utf-8")


def render(study: StudyResults, *, with_photographs: bool) -> str:
    """Render the report as HTML without requests to a network."""
    best, objective, at = study.best, study.objective, _reference_scores(study)
    return template("report.html").render(
        study=study,
        best=best,
        objective=objective,
        base=None if at is None else at.base,
        real_baseline=None if at is None else at.real_baseline,
        verdict=verdict_of(study.evaluation, study.config, ended=study.ended),
        score=None if best is None else best.score(objective),
        grids=_grids(study),
        held_out=_picture(study.folder / "precomputed/reference.png") if with_photographs else "",
        baseline=_picture(study.folder / "precomputed/base_model.png"),
        nearest=_pairs(study, "nearest") if with_photographs else [],
        suspects=_pairs(study, "suspects") if with_photographs else [],
        with_photographs=with_photographs,
        curves=_curves(study),
        score_axis=_score_axis(study),
        importance=charts.importance(study.importance),
        fewest_trials=FEWEST_TRIALS,
        coordinates=charts.parallel_coordinates(study.trials, best, objective),
        settings=list(dict.fromkeys(name for trial in study.trials for name in trial.values)),
        state=_state,
        flags=_flags(best),
        versions={name.removeprefix("version."): version for name, version in versions().items()},
        config_text=yaml.safe_dump(study.config.model_dump(mode="json"), sort_keys=False),
        written=datetime.now().astimezone(),
    )


def template(name: str) -> Template:
    """Load a template of this folder; a missing value is an error."""
    environment = Environment(
        loader=PackageLoader("woundray.reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["figure"] = _figure
    environment.filters["description"] = describe
    return environment.get_template(name)


def _curves(study: StudyResults) -> str:
    base = study.base_model_scores.get(study.objective)
    return "" if base is None else charts.learning_curves(study.trials, study.best, study.objective, base)


def _score_axis(study: StudyResults) -> str:
    at = _reference_scores(study)
    score = None if study.best is None else study.best.score(study.objective)
    if score is None or at is None or at.base is None:
        return ""
    return charts.score_axis(score, at.base, at.real_baseline, study.objective)


def _reference_scores(study: StudyResults) -> ReferenceScores | None:
    """Return the scores of base model and photographs that the best trial is compared with."""
    if study.best is None:
        return None
    return reference_scores(study.best, study)


def _grids(study: StudyResults) -> list[EpochGrid]:
    """Return the best trial's image grids by epoch."""
    if study.best is None:
        return []
    folder = study.folder / "trials" / study.best.id / GRIDS
    return [
        EpochGrid(
            report.epoch,
            report.metrics[study.objective],
            _picture(folder / f"epoch_{report.epoch:04d}.png"),
            report.epoch == study.best.best_epoch,
        )
        for report in study.best.reports
        if (folder / f"epoch_{report.epoch:04d}.png").is_file()
    ]


def _pairs(study: StudyResults, kind: str) -> list[dict[str, Any]]:
    """Return the evaluation's pairs of generated image and photograph (`nearest`, `suspects`), with their images."""
    if study.evaluation is None or study.best is None or study.best.checkpoint is None:
        return []
    folder = study.best.checkpoint / "evaluation"
    found = []
    for rank, facts in enumerate(study.evaluation.get(kind, []), start=1):
        name = facts.get("file", f"suspects/{rank:02d}_seed_{facts['seed']:05d}.png")
        if (folder / name).is_file():
            found.append({**facts, "picture": _picture(folder / name)})
    return found


def _picture(path: Path) -> str:
    """Return an image file as a WebP data URL; empty if the file does not exist."""
    if not path.is_file():
        return ""
    with Image.open(path) as image:
        picture = image.convert("RGB")
    picture.thumbnail((_WIDEST_PX, _WIDEST_PX))
    file = io.BytesIO()
    picture.save(file, format="WEBP", quality=_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _figure(value: object) -> str:
    """Format a number with four digits; None is empty; other values stay as they are."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"
    return str(value)


def _state(trial: TrialResult) -> str:
    if trial.copies:
        return "copies"
    return "stopped early" if trial.stopped_early else trial.status


def _flags(best: TrialResult | None) -> str:
    """Return the best trial's settings as command-line flags."""
    values = best.values if best else {}
    return " ".join(f"--{name} {value}" for name, value in values.items() if value is not None)
