"""Training sets of arms: equal total weight, ratios, oversampling and views."""

from pathlib import Path

import numpy as np
import pytest
import torch

from downstream.fakes import PHASES, NoisyStudy, noisy
from woundray.downstream.arms import RECIPES, Arm, Recipe, build_training_set, synthetic_arms
from woundray.downstream.cohort import augmented_views, load_cohort
from woundray.downstream.synthetic_pools import Pool

SOURCE = NoisyStudy(6)()
COHORT = load_cohort(SOURCE, PHASES, views=2)
TRAIN = np.arange(2, len(COHORT.photos) - 8)  # 10, 12 and 4 pictures of the phases
DRAWN = {phase: torch.stack([noisy(phase, [9, number]) for number in range(30)]) for phase in PHASES}
POOLS = {
    phase: Pool(phase, pictures, augmented_views(pictures, SOURCE.augmentation, views=2), 1.0, 0.0, {})
    for phase, pictures in DRAWN.items()
}
ARMS = (*(Arm(recipe) for recipe in RECIPES), *synthetic_arms((0.5, 2.0)))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_all_arms_weigh_as_much_as_the_real_pictures(arm: Arm, recipe: Recipe) -> None:
    found = build_training_set(arm.with_recipe(recipe), COHORT, TRAIN, POOLS, seed=0)

    assert found.weights.sum() == pytest.approx(len(TRAIN))
    lengths = {len(found.pictures), len(found.labels), len(found.weights), len(found.kinds), len(found.photos)}
    assert len(lengths) == 1


@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_synthetic_pictures_come_phase_by_phase_in_their_ratio(ratio: float) -> None:
    found = build_training_set(Arm("best", ratio).with_recipe("real"), COHORT, TRAIN, POOLS, seed=0)
    synthetic = np.array(found.kinds) == "synthetic"

    assert np.bincount(found.labels[~synthetic]).tolist() == [10, 12, 4]
    assert np.bincount(found.labels[synthetic]).tolist() == [10 * ratio, 12 * ratio, 4 * ratio]
    assert len(set(found.weights)) == 1
    assert [photo is None for photo in found.photos] == synthetic.tolist()


def test_oversampling_makes_phases_weigh_alike() -> None:
    for arm in (Arm("oversampling"), Arm("best", 2.0)):
        found = build_training_set(arm.with_recipe("oversampling"), COHORT, TRAIN, POOLS, seed=0)

        assert np.bincount(found.labels, found.weights) == pytest.approx(np.full(3, len(TRAIN) / 3))


def test_views_share_the_weight_of_their_picture() -> None:
    """Or a photograph of many views would count more than a synthetic picture."""
    found = build_training_set(Arm("best", 0.5).with_recipe("augmentation"), COHORT, TRAIN, POOLS, seed=0)
    synthetic = np.array(found.kinds) == "synthetic"

    assert found.weights[synthetic].sum() == pytest.approx(found.weights.sum() / 3)
    assert len(found.pictures) == 3 * (len(TRAIN) + 13)


def test_copies_with_the_recipes_views_are_the_recipe() -> None:
    """Copied photographs leave the distribution of training pictures as it was."""
    plain = {
        phase: COHORT.plain[torch.from_numpy(TRAIN[COHORT.labels[TRAIN] == index])]
        for index, phase in enumerate(PHASES)
    }
    pools = {
        phase: Pool(phase, pictures, augmented_views(pictures, SOURCE.augmentation, views=2), 1.0, 0.0, {})
        for phase, pictures in plain.items()
    }
    found = build_training_set(Arm("best", 1.0).with_recipe("augmentation"), COHORT, TRAIN, pools, seed=0)

    shown = {picture.numpy().tobytes() for picture in COHORT.plain[torch.from_numpy(TRAIN)]}
    share = sum(w for w, p in zip(found.weights, found.pictures, strict=True) if p.numpy().tobytes() in shown)
    alone = build_training_set(Arm("augmentation").with_recipe("augmentation"), COHORT, TRAIN, {}, seed=0)
    share_alone = sum(w for w, p in zip(alone.weights, alone.pictures, strict=True) if p.numpy().tobytes() in shown)
    assert share == pytest.approx(share_alone)


def test_a_seed_draws_other_pictures_and_the_whole_pool_is_the_same_for_all() -> None:
    pool = POOLS["I"]

    assert pool.draw(10, 0).tolist() != pool.draw(10, 1).tolist()
    assert len(set(pool.draw(10, 0))) == 10
    assert pool.draw(30, 0).tolist() == pool.draw(30, 1).tolist()


def test_views_depend_on_a_photograph_alone() -> None:
    smaller = load_cohort(SOURCE.only([photo for photo in SOURCE.photos if photo.phase != "I"]), ("P", "R"), views=2)

    assert torch.equal(smaller.views, COHORT.views[COHORT.labels > 0])
    assert smaller.photos[0].path == Path("P00-1.png")
