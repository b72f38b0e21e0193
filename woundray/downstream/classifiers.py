"""Phase classifiers that arms are compared by: the packaged features, networks, and the user's own program."""

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

_LAST_LINES = 3  # of a program that failed


@dataclass(frozen=True)
class HeldOut:
    """What is predicted: uint8 (m, 3, H, W), and the photograph of each."""

    pictures: Tensor
    photos: tuple[Photo, ...]


class Classifier(Protocol):
    """Learns from one set and predicts the phases of another, as places among `phases`: (m,).

    `key` changes with everything that predictions depend on, but for the sets and the seed. `random`: the seed changes
    them. `folder` is empty and its own.
    """

    @property
    def random(self) -> bool: ...

    @property
    def key(self) -> str: ...

    def __call__(
        self, train: TrainingSet, test: HeldOut, phases: Sequence[str], *, seed: int, folder: Path
    ) -> Rows: ...


def make_classifier(config: EffectConfig, features: Path) -> Classifier:
    """The classifier that effect.classifier names; features: folder of what was measured before."""
    if config.classifier == "lite0":
        return FeatureClassifier(features, config.regularisation)
    if config.classifier == "command":
        return CommandClassifier(config.command)
    return Network(NetworkClassifier(config.classifier, config.steps, config.batch_size, config.learning_rate))


@dataclass(frozen=True)
class FeatureClassifier:
    """L2-regularised logistic regression on standardised EfficientNet-Lite0 features (1280-d); no chance is in it."""

    features: Path
    regularisation: float
    random = False

    @property
    def key(self) -> str:
        """Features and penalty."""
        return f"lite0 head, logistic regression, C {self.regularisation:g}"

    def __call__(self, train: TrainingSet, test: HeldOut, phases: Sequence[str], *, seed: int, folder: Path) -> Rows:
        embedder = _embedder(self.features)
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
    """A network of which all weights are trained, with equal optimizer steps and balanced draws; see `networks.py`."""

    network: NetworkClassifier
    random = True

    @property
    def key(self) -> str:
        """Network and training."""
        return repr(self.network)

    def __call__(self, train: TrainingSet, test: HeldOut, phases: Sequence[str], *, seed: int, folder: Path) -> Rows:
        return self.network.fit_predict(
            train.pictures, train.labels, train.weights, test.pictures, classes=len(phases), seed=seed
        )


@dataclass(frozen=True)
class CommandClassifier:
    """The user's own program: it reads two CSV files and writes a third.

    {train}: picture, phase, weight, kind (real, augmented, synthetic), photo, patient, visit; the last three are empty
    for synthetic pictures. {test}: picture, photo, patient, visit. `picture` is a PNG file beside; `photo` is the path
    of the data set's photograph, by which further columns of the user's are found. {predictions}: picture, phase.
    """

    command: str
    random = True

    @property
    def key(self) -> str:
        """The command; what it calls is the user's to keep the same."""
        return self.command

    def __call__(self, train: TrainingSet, test: HeldOut, phases: Sequence[str], *, seed: int, folder: Path) -> Rows:
        files = {name: folder / f"{name}.csv" for name in ("train", "test", "predictions")}
        kinds = zip(train.labels, train.weights, train.kinds, train.photos, strict=True)
        _write(
            files["train"],
            train.pictures,
            [
                {"phase": phases[label], "weight": f"{weight:.6g}", "kind": kind, **_facts(photo)}
                for label, weight, kind, photo in kinds
            ],
        )
        _write(files["test"], test.pictures, [_facts(photo) for photo in test.photos])
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
        return _read_predictions(files["predictions"], len(test.photos), phases)


@functools.cache
def _embedder(features: Path) -> PictureFeatures:
    """One a process: loading it takes a second, and it remembers."""
    return PictureFeatures(Lite0Embedder("cuda" if torch.cuda.is_available() else "cpu"), features)


def _facts(photo: Photo | None) -> dict[str, str]:
    if photo is None:
        return {"photo": "", "patient": "", "visit": ""}
    return {"photo": photo.path.as_posix(), "patient": photo.patient, "visit": str(photo.visit)}


def _write(file: Path, pictures: Tensor, rows: list[dict[str, str]]) -> None:
    """A CSV file whose first column is the path of a PNG file, which lies in a folder of the CSV file's name."""
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
    wanted = [f"{number:05d}" for number in range(count)]
    missing = [name for name in wanted if found.get(name) not in phases]
    if missing:
        raise UserError(
            f"effect.command: {file}: {len(missing)} of {count} test pictures have no phase of {', '.join(phases)}, "
            f"such as {missing[0]}.png; have the command write one for each"
        )
    return np.array([tuple(phases).index(found[name]) for name in wanted])
