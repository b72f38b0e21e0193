"""Copies of real photographs, cropped, turned and compressed, among new ones: found at few false alarms."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from woundray.data.manifest import read_dataset
from woundray.metrics.extractors import Lite0
from woundray.metrics.memorization import NearestRatios, augmented_views, copy_rate, nearest_ratio

SIDE = 128
TRAIN, HELD_OUT, NEW, COPIES = 90, 75, 75, 25


def planted(picture: Tensor, generator: np.random.Generator) -> Tensor:
    """A copy that shows 90 % or more of the picture, is turned by 3 degrees or less, or is a JPEG of quality 60."""
    image = Image.fromarray(picture.permute(1, 2, 0).numpy())
    kind = generator.integers(3)
    if kind == 0:
        image = image.rotate(generator.uniform(-3, 3), Image.Resampling.BICUBIC)
    elif kind == 1:
        side = SIDE * generator.uniform(0.9, 1)
        left, top = generator.uniform(0, SIDE - side, size=2)
        image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    else:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=60)
        image = Image.open(file)
    return torch.tensor(np.asarray(image)).permute(2, 0, 1)


@pytest.fixture(scope="module")
def crops(real_photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensor, list[str]]:
    """All wounds and the group of each, of one group after another."""
    from woundray.config import Config
    from woundray.data.image_source import open_image_source
    from woundray.data.prepare import prepare

    out = tmp_path_factory.mktemp("dfu") / "data"
    prepare(real_photographs, out)
    config = Config().with_values({"phase": "all", "data.root": out, "model.resolution": SIDE})
    source = open_image_source(config)
    assert len(read_dataset(out).photos) == len(source.photos)
    generator = np.random.default_rng(0)
    order = {
        group: place for place, group in enumerate(generator.permutation(sorted({p.group for p in source.photos})))
    }
    photos = sorted(source.photos, key=lambda photo: order[photo.group])
    return torch.stack([source.plain(photo) for photo in photos]), [photo.group for photo in photos]


def test_a_quarter_of_copies_is_found(crops: tuple[Tensor, list[str]]) -> None:
    pictures, groups = crops
    generator = np.random.default_rng(1)
    train, unseen = pictures[:TRAIN], pictures[TRAIN : TRAIN + HELD_OUT + NEW]
    originals = generator.choice(TRAIN, COPIES, replace=False)
    copies = torch.stack([planted(train[row], generator) for row in originals])

    head = Lite0("head")
    bank = head(augmented_views(train)).numpy()
    of_copies, of_unseen = (nearest_ratio(head(x).numpy(), bank, groups[:TRAIN]) for x in (copies, unseen))
    assert np.mean(of_copies.nearest == originals) == 1

    # which unseen photographs set the threshold, and which stand for new pictures, is chance: deal them anew
    found, accused = [], []
    for _ in range(40):
        held_out, new = np.split(generator.permutation(HELD_OUT + NEW), [HELD_OUT])
        drawn = join(of_copies, rows(of_unseen, new))
        result = copy_rate(drawn, rows(of_unseen, held_out), false_alarm_rate=0.05)
        suspected = np.array([suspect.generated for suspect in result.suspects])
        found.append(np.sum(suspected < COPIES) / COPIES)
        accused.append(np.sum(suspected >= COPIES) / NEW)
        assert result.p_value < 0.01
    assert np.mean(found) >= 0.9
    assert np.mean(accused) <= 0.06


def rows(ratios: NearestRatios, some: NDArray[np.int64]) -> NearestRatios:
    return NearestRatios(ratios.ratio[some], ratios.nearest[some])


def join(a: NearestRatios, b: NearestRatios) -> NearestRatios:
    return NearestRatios(np.concatenate([a.ratio, b.ratio]), np.concatenate([a.nearest, b.nearest]))
