"""Phase classifiers of the arms: packaged features with logistic regression, networks, and the user's own program."""

import csv
import functools
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from woundray.config import EffectConfig
from woundray.data.image_files import write_photo
from woundray.data.manifest import Photo
from woundray.downstream.arms import TrainingSet
from woundray.downstream.cohort import Rows
from woundray.downstream.feature_cache import PictureFeatures
from woundray.downstream.networks import NetworkClassifier
from woundray.errors import UserError
from woundray.evaluation.embedders import Lite0Embedder, embed

_LAST_LINES = 3  # of the error output of a failed program


@dataclass(frozen=True)
class HeldOut:
    """Test images, uint8 (m, 3, H, W), the photograph of each, and the names of the classes."""

    pictures: Tensor
    photos: tuple[Photo, ...]
    phases: tuple[str, ...]


class Classifier(Protocol):
    """Train on one set and predict the phases of another, as indices (m,) into `test.phases`.

    `key` changes with everything that predictions depend on, except the sets and the seed. `random`: predictions depend
    on the seed. `folder` is an empty scratch folder.
    """

    @property
    def random(self) -> bool: ...

    @property
    def key(self) -> str: ...

    def __call__(self, train: TrainingSet, test: HeldOut, *, seed: int, folder: Path) -> Rows: ...


def make_classifier(config: EffectConfig, features: Path) -> Classifier:
    """Return the classifier that effect.classifier names.

    Args:
        features: folder of the feature cache.
    """
    if config.classifier == "lite0":
        return FeatureClassifier(features, config.regularisation)
    if config.classifier == "command":
        return CommandClassifier(config.command)
    return Network(NetworkClassifier(config.classifier, config.steps, config.batch_size, config.learning_rate))


@dataclass(frozen=True)
class FeatureClassifier:
    """L2-regularised logistic regression on standardised EfficientNet-Lite0 features (1280-d); deterministic."""

    features: Path
    regularisation: float
    random = False

    @property
    def key(self) -> str:
        """Features and penalty."""
        return f"lite0 head, logistic regression, C {self.regularisation:g}"

    def __call__(self, train: TrainingSet, test: HeldOut, *, seed: int, folder: Path) -> Rows:
        embedder = _cached_embedder(self.features)
        learned, unseen = (
            embed(embedder, pictures).copies.astype(np.float64) for pictures in (train.pictures, test.pictures)
        )
        scale = StandardScaler().fit(learned, sample_weight=train.weights)
        model = LogisticRegression(C=self.regularisation, max_iter=2000)
        model.fit(scale.transform(learned), train.labels, sample_weight=train.weights)
        predicted: Rows = model.predict(scale.transform(unseen))
        return predicted


@dataclass(frozen=True)
class Network:
    """Network with all weights trained, with the same number of optimizer steps for every arm (`networks.py`)."""

    network: NetworkClassifier
    random = True

    @property
    def key(self) -> str:
        """Network and training settings."""
        return repr(self.network)

    def __call__(self, train: TrainingSet, test: HeldOut, *, seed: int, folder: Path) -> Rows:
        return self.network.fit_predict(train, test.pictures, classes=len(test.phases), seed=seed)


@dataclass(frozen=True)
class CommandClassifier:
    """The user's own program: it reads two CSV files and writes a third.

    {train}: picture, phase, weight, kind (real, augmented, synthetic), photo, patient, visit; the last three are empty
    for synthetic images. {test}: picture, photo, patient, visit. `picture` is the path of a PNG file; `photo` is the
    photograph's path in the data set, a key to further columns of the user's. {predictions}: picture, phase.
    """

    command: str
    random = True

    @property
    def key(self) -> str:
        """The command line; the user has to keep the program the same."""
        return self.command

    def __call__(self, train: TrainingSet, test: HeldOut, *, seed: int, folder: Path) -> Rows:
        files = {name: folder / f"{name}.csv" for name in ("train", "test", "predictions")}
        rows = zip(train.labels, train.weights, train.kinds, train.photos, strict=True)
        _write_table(
            files["train"],
            train.pictures,
            [
                {"phase": test.phases[label], "weight": f"{weight:.6g}", "kind": kind, **_photo_columns(photo)}
                for label, weight, kind, photo in rows
            ],
        )
        _write_table(files["test"], test.pictures, [_photo_columns(photo) for photo in test.photos])
        words = [
            word.format(**{name: str(path) for name, path in files.items()}, seed=seed)
            for word in shlex.split(self.command)
        ]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
        except OSError as error:
            raise UserError(f"effect.command: {words[0]}: {error.strerror}; give a program that can be run") from None
        if done.returncode != 0:
            last = " / ".join(done.stderr.strip().splitlines()[-_LAST_LINES:])
            raise UserError(
                f"effect.command: exit code {done.returncode}: {last}; run the command by hand to see all of it"
            )
        return _read_predictions(files["predictions"], len(test.photos), test.phases)


@functools.cache
def _cached_embedder(features: Path) -> PictureFeatures:
    """Return the embedder of this process: it takes a second to load and keeps its features in memory."""
    return PictureFeatures(Lite0Embedder("cuda" if torch.cuda.is_available() else "cpu"), features)


def _photo_columns(photo: Photo | None) -> dict[str, str]:
    if photo is None:
        return {"photo": "", "patient": "", "visit": ""}
    return {"photo": photo.path.as_posix(), "patient": photo.patient, "visit": str(photo.visit)}


def _write_table(file: Path, pictures: Tensor, rows: list[dict[str, str]]) -> None:
    """Write a CSV file whose first column is the path of a PNG file, in a folder with the CSV file's name."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["picture", *rows[0]])
        writer.writeheader()
        for number, (picture, row) in enumerate(zip(pictures, rows, strict=True)):
            path = file.with_suffix("") / f"{number:05d}.png"
            write_photo(picture.permute(1, 2, 0).numpy(), path)  # CHW => HWC
            writer.writerow({"picture": str(path), **row})


def _read_predictions(file: Path, count: int, phases: Sequence[str]) -> Rows:
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            found = {Path(row["picture"]).stem: row["phase"] for row in csv.DictReader(stream)}
    except (OSError, KeyError) as error:
        raise UserError(
            f"effect.command: {file}: no CSV file with the columns picture, phase ({error}); have the command write it"
        ) from None
    names = [f"{number:05d}" for number in range(count)]
    missing = [name for name in names if found.get(name) not in phases]
    if missing:
        raise UserError(
            f"effect.command: {file}: {len(missing)} of {count} test pictures have no phase of {', '.join(phases)}, "
            f"such as {missing[0]}.png; have the command write one for each"
        )
    return np.array([tuple(phases).index(found[name]) for name in names])
