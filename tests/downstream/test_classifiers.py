"""Classifiers: the packaged features, a network, and a program of the user's."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from downstream.fakes import PHASES, NoisyStudy
from woundray.config import EffectConfig
from woundray.downstream.arms import Arm, TrainingSet, build_training_set
from woundray.downstream.classifiers import CommandClassifier, FeatureClassifier, HeldOut, make_classifier
from woundray.downstream.cohort import load_cohort
from woundray.downstream.feature_cache import PictureFeatures
from woundray.downstream.networks import make_network, train_mode
from woundray.errors import UserError

COHORT = load_cohort(NoisyStudy(4)(), PHASES, views=1)
TRAIN, HELD = np.arange(0, 24, 2), np.arange(1, 24, 2)
LEARN = build_training_set(Arm("augmentation").with_recipe("augmentation"), COHORT, TRAIN, {}, seed=0)
UNSEEN = HeldOut(COHORT.plain[HELD], tuple(COHORT.photos[row] for row in HELD), PHASES)

PROGRAM = """
import csv, sys
train, test, predictions, seed = sys.argv[1:]
rows = list(csv.DictReader(open(train)))
assert {row["kind"] for row in rows} == {"real", "augmented"} and int(seed) == 7
known = {row["patient"]: row["phase"] for row in rows}  # what only a table tells
with open(predictions, "w") as out:
    out.write("picture,phase\\n")
    for row in csv.DictReader(open(test)):
        assert open(row["picture"], "rb").read(4) == b"\\x89PNG" and "phase" not in row
        out.write(f"{row['picture']},{known[row['patient']]}\\n")
"""


class Means:
    """Mean colours; counts how many pictures it saw."""

    name, parts, dim, content_hash = "means", (1, 1, 1), 3, "means"
    seen = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return images.float().mean(dim=(2, 3))


def test_a_picture_is_measured_once_whatever_set_it_is_in(tmp_path: Path) -> None:
    means = Means()
    first = PictureFeatures(means, tmp_path)(COHORT.plain[:6])
    again = PictureFeatures(means, tmp_path)  # another process

    assert torch.equal(again(COHORT.plain[[5, 0, 0]]), first[[5, 0, 0]])
    assert means.seen == 6
    assert torch.equal(again(COHORT.plain[4:8])[:2], first[4:6])
    assert means.seen == 8


def test_the_packaged_features_tell_colours_apart(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    colours = torch.tensor([[190, 60, 50], [200, 180, 90], [90, 70, 160]]).view(3, 3, 1, 1)
    labels = np.tile(np.arange(3), 8)
    noise = torch.randint(-40, 40, (24, 3, 64, 64), generator=generator)
    pictures = (colours[torch.from_numpy(labels)] + noise).clamp(0, 255).to(torch.uint8)
    half = TrainingSet(pictures[:12], labels[:12], np.ones(12), ("real",) * 12, (None,) * 12)

    classifier = FeatureClassifier(tmp_path, 0.1)
    found = classifier(half, HeldOut(pictures[12:], UNSEEN.photos, PHASES), seed=0, folder=tmp_path)

    assert found.tolist() == labels[12:].tolist()


def test_a_program_of_the_users_is_given_tables_and_gives_one(tmp_path: Path) -> None:
    program = tmp_path / "own.py"
    program.write_text(PROGRAM)
    command = f"{sys.executable} {program} {{train}} {{test}} {{predictions}} {{seed}}"
    classifier = make_classifier(EffectConfig(classifier="command", command=command), tmp_path)

    assert classifier(LEARN, UNSEEN, seed=7, folder=tmp_path).tolist() == COHORT.labels[HELD].tolist()
    assert (tmp_path / "train.csv").read_text().startswith("picture,phase,weight,kind,photo,patient,visit\n")


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("raise ValueError('no licence')", "exit code 1: .*no licence"),
        ("pass", "no CSV file with the columns picture, phase"),
        (
            "import sys; open(sys.argv[3], 'w').write('picture,phase\\n00000.png,I\\n00001.png,X\\n')",
            "11 of 12 test pictures have no phase of I, P, R, such as 00001.png",
        ),
    ],
)
def test_a_program_that_fails(tmp_path: Path, program: str, message: str) -> None:
    own = tmp_path / "own.py"
    own.write_text(program)
    classifier = CommandClassifier(f"{sys.executable} {own} {{train}} {{test}} {{predictions}} {{seed}}")

    with pytest.raises(UserError, match=message):
        classifier(LEARN, UNSEEN, seed=7, folder=tmp_path)


def test_a_network_is_a_function_of_its_seed(tmp_path: Path) -> None:
    config = EffectConfig(classifier="lite0-finetuned", steps=2, batch_size=4)
    classifier = make_classifier(config, tmp_path)
    state = torch.random.get_rng_state()

    first, again = (classifier(LEARN, UNSEEN, seed=3, folder=tmp_path) for _ in range(2))

    assert first.tolist() == again.tolist()
    assert set(first) <= {0, 1, 2}
    assert torch.equal(torch.random.get_rng_state(), state)


def test_batch_norms_keep_their_statistics() -> None:
    network = make_network("lite0-finetuned", 3)
    train_mode(network)
    before = {name: value.clone() for name, value in network.named_buffers() if "running" in name}

    network(COHORT.plain[:4])

    assert before
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers() if name in before)
    assert network(COHORT.plain[:4]).shape == (4, 3)


def test_an_unknown_network() -> None:
    with pytest.raises(UserError, match=r"effect\.classifier: resnet9000"):
        make_network("resnet9000", 3)
