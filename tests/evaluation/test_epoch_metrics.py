"""Scores of an epoch against held-out photographs, on features that are easy to reckon with."""

from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.fakes import HELD_OUT, TRAIN, Colours, pictures, reference
from woundray.errors import UserError
from woundray.evaluation.epoch_metrics import score
from woundray.evaluation.real_reference import read_reference, write_reference
from woundray.metrics.frechet import frechet_distance
from woundray.metrics.kid import kid


def test_scores_are_distances_to_held_out_pictures_and_z_counts_floor_sds() -> None:
    drawn, against = pictures(30, seed=2, level=160), reference()
    scores = score(drawn, against, Colours())
    means = [x.float().mean(dim=(2, 3)).numpy() for x in (drawn, HELD_OUT)]
    assert scores["fd_fake"] == pytest.approx(frechet_distance(*means))
    assert scores["kid_fake"] == pytest.approx(kid(*means))
    assert scores["fd_fake_z"] == pytest.approx(
        (scores["fd_fake"] - against.real_baseline.mean) / against.real_baseline.sd
    )
    near = score(pictures(30, seed=3), against, Colours())
    assert near["fd_fake_z"] < 4 < scores["fd_fake_z"]


def test_pictures_that_copy_training_pictures_are_flagged_and_new_ones_are_not() -> None:
    copied = pictures(30, seed=2)
    copied[:10] = (TRAIN[20:30].float() * 0.97 + 3).to(torch.uint8).flip(3)
    scores = score(copied, reference(), Colours())
    assert scores["copy_rate"] >= 10 / 30
    assert scores["copies_flag"] == 1.0
    new = score(pictures(30, seed=3), reference(), Colours())
    assert new["copies_flag"] == 0.0
    assert new["copy_rate"] < 0.2
    assert new["copy_rate_held_out"] <= 0.1


def test_scores_do_not_depend_on_the_order_of_pictures() -> None:
    drawn = pictures(30, seed=2)
    shuffled = drawn[torch.randperm(30, generator=torch.Generator().manual_seed(0))]
    assert score(drawn, reference(), Colours()) == pytest.approx(score(shuffled, reference(), Colours()))


def test_a_reference_is_what_was_written(tmp_path: Path) -> None:
    written = reference()
    write_reference(written, tmp_path)
    read = read_reference(tmp_path)
    drawn = pictures(30, seed=2)
    assert score(drawn, read, Colours()) == score(drawn, written, Colours())
    assert (read.real_baseline, read.train.groups, read.copies) == (
        written.real_baseline,
        written.train.groups,
        written.copies,
    )
    assert not list(tmp_path.glob(".*"))


def test_the_floor_is_at_the_asked_number_against_as_many_as_are_held_out() -> None:
    against = reference(n=30)
    assert (against.real_baseline.n, against.real_baseline.m) == (30, 40)
    assert against.at(30) is against
    more = against.at(50).real_baseline
    assert (more.n, more.m) == (50, 40)
    assert more.mean < against.real_baseline.mean  # the bias of the distance falls with n
    too_many = against.at(160).real_baseline
    assert (too_many.n, too_many.m) == (80, 20)  # both sides shrink alike


@pytest.mark.parametrize(
    ("drawn", "message"),
    [
        (pictures(10, seed=0).float(), "torch.float32 from"),
        (pictures(10, seed=0).float() / 255, r"\(x \* 255\)"),
        (torch.full((10, 3, 16, 16), float("nan")), "torch.float32"),
        (pictures(10, seed=0)[:, :1], "greyscale"),
        (pictures(1, seed=0), "1 pictures; give at least 2"),
        ((pictures(10, seed=0).float() / 255).round().to(torch.uint8), "almost black"),
    ],
)
def test_pictures_in_another_form_are_refused(drawn: torch.Tensor, message: str) -> None:
    class Checked(Colours):
        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            from woundray.metrics.extractors import check_images

            check_images(images)
            return super().__call__(images)

    with pytest.raises(UserError, match=message):
        score(drawn, reference(), Checked())


def test_equal_pictures_have_a_finite_and_bad_score() -> None:
    scores = score(pictures(1, seed=0).expand(20, -1, -1, -1), reference(), Colours())
    assert np.isfinite(list(scores.values())).all()
    assert scores["fd_fake_z"] > 3
