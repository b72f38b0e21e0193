import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from woundray.config import Config
from woundray.data.manifest import Photo
from woundray.data.split import count_folds, split_by_fold, split_by_patient, split_for, write_split
from woundray.errors import UserError


@st.composite
def manifests(draw: st.DrawFn) -> list[Photo]:
    """Patients with one to six pictures of one or several phases; some patients share a group."""
    photos: list[Photo] = []
    for number in range(draw(st.integers(6, 25))):
        group = f"g{draw(st.integers(0, number))}" if draw(st.booleans()) else f"g{number}"
        for phase in draw(st.lists(st.sampled_from("IPR"), min_size=1, max_size=6)):
            photos.append(Photo(Path(f"{len(photos):03}.png"), phase, f"p{number}", group=group))
    return photos


def groups_by_main_phase(photos: list[Photo]) -> dict[str, set[str]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for photo in photos:
        counts[photo.group][photo.phase] += 1
    main: dict[str, set[str]] = defaultdict(set)
    for group, of_phases in counts.items():
        main[min(of_phases, key=lambda phase: (-of_phases[phase], phase))].add(group)
    return main


@given(manifests(), st.floats(0.05, 0.5), st.integers(0, 2**32), st.randoms(use_true_random=False))
def test_sides_share_nobody_and_hold_everything(photos, share, seed, order) -> None:  # type: ignore[no-untyped-def]
    main = groups_by_main_phase(photos)
    if any(len(main[phase]) < 2 for phase in {photo.phase for photo in photos}):
        with pytest.raises(UserError, match="2 or more to hold one out"):
            split_by_patient(photos, validation_share=share, seed=seed)
        return
    split = split_by_patient(photos, validation_share=share, seed=seed)

    assert sorted(str(photo.path) for photo in split.train + split.validation) == [str(p.path) for p in photos]
    assert not {photo.patient for photo in split.train} & {photo.patient for photo in split.validation}
    assert not {photo.group for photo in split.train} & {photo.group for photo in split.validation}

    held_out = {photo.group for photo in split.validation}
    sizes = Counter(photo.group for photo in photos)
    for groups in filter(None, main.values()):
        assert groups & held_out and groups - held_out
        # no nearer than the largest group can be asked
        wanted = share * sum(sizes[group] for group in groups)
        assert abs(sum(sizes[group] for group in groups & held_out) - wanted) <= max(sizes[group] for group in groups)

    shuffled = list(photos)
    order.shuffle(shuffled)
    assert split_by_patient(shuffled, validation_share=share, seed=seed) == split


def cohort(patients: int, pictures: int = 3, phase: str = "I") -> list[Photo]:
    return [
        Photo(Path(f"{patient:03}_{picture}.png"), phase, f"{patient:03}", group=f"{patient:03}")
        for patient in range(patients)
        for picture in range(pictures)
    ]


@pytest.mark.parametrize("share", [0.1, 0.2, 0.35, 0.5])
def test_the_share_is_met_with_many_patients(share: float) -> None:
    photos = cohort(100)
    for seed in range(5):
        split = split_by_patient(photos, validation_share=share, seed=seed)
        assert len(split.validation) / len(photos) == pytest.approx(share, abs=0.01)


def test_another_seed_holds_out_other_patients() -> None:
    first, again, other = (split_by_patient(cohort(40), validation_share=0.2, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_every_patient_is_held_out_by_some_seed() -> None:
    splits = [split_by_patient(cohort(6, 1), validation_share=0.3, seed=seed) for seed in range(40)]
    assert len({photo.patient for split in splits for photo in split.validation}) == 6


def test_one_group_can_not_be_split() -> None:
    alike = [Photo(Path(f"{name}.png"), "P", name, group="a") for name in "abc"]
    with pytest.raises(UserError, match="phase P is the main phase of 1 group"):
        split_by_patient(alike, validation_share=0.2, seed=0)


def test_a_phase_that_is_the_main_one_of_nobody_is_told() -> None:
    photos = [*cohort(5), Photo(Path("x.png"), "R", "000", group="000")]
    with pytest.raises(UserError, match="phase R is the main phase of 0 groups"):
        split_by_patient(photos, validation_share=0.2, seed=0)


def test_the_written_split_names_patients_and_files(tmp_path: Path) -> None:
    split = split_by_patient(cohort(5, 2), validation_share=0.2, seed=0)
    write_split(split, tmp_path / "split.json")
    sides = json.loads((tmp_path / "split.json").read_text(encoding="utf-8"))
    assert len(sides["validation"]["patients"]) == 1 and len(sides["train"]["patients"]) == 4
    assert sides["validation"]["files"] == [str(photo.path) for photo in split.validation]
    assert [path.name for path in tmp_path.iterdir()] == ["split.json"]


def test_a_patient_of_whom_some_rows_name_a_group_stays_on_one_side() -> None:
    """A hand-made manifest may fill `group` for some pictures only."""
    photos = [
        Photo(Path(f"{patient}_{number}.png"), "I", f"p{patient}", group=f"g{patient}" if number else f"p{patient}")
        for patient in range(8)
        for number in range(2)
    ]
    for seed in range(10):
        split = split_by_patient(photos, validation_share=0.4, seed=seed)
        assert not {photo.patient for photo in split.train} & {photo.patient for photo in split.validation}


@given(manifests(), st.integers(2, 4), st.integers(0, 2**32))
def test_every_photograph_is_held_out_in_one_fold(photos, folds, seed) -> None:  # type: ignore[no-untyped-def]
    main = groups_by_main_phase(photos)
    if any(len(main[phase]) < folds for phase in {photo.phase for photo in photos}):
        with pytest.raises(UserError, match=f"{folds} or more to hold one out"):
            split_by_fold(photos, folds=folds, fold=0, seed=seed)
        return
    splits = [split_by_fold(photos, folds=folds, fold=fold, seed=seed) for fold in range(folds)]
    held_out = [str(photo.path) for split in splits for photo in split.validation]
    assert sorted(held_out) == [str(photo.path) for photo in photos]
    largest = max(Counter(photo.group for photo in photos).values())
    for split in splits:
        assert len(split.train) + len(split.validation) == len(photos)
        assert not {photo.group for photo in split.train} & {photo.group for photo in split.validation}
    sizes = [len(split.validation) for split in splits]
    assert max(sizes) - min(sizes) <= largest * len(main)


def test_folds_are_for_few_photographs_and_a_share_of_0_holds_nobody_out() -> None:
    photos = [Photo(Path(f"{number:03}.png"), "I", f"p{number}", group=f"p{number}") for number in range(70)]
    few = Config().with_values({"validation.pictures": 64})  # 0.3 of 70 are fewer
    assert count_folds(70, few) == 3
    assert count_folds(214, few) == 1
    assert len(split_for(photos, few).validation) in (23, 24)
    none = few.with_values({"validation.folds": 1})
    assert len(split_for(photos, none).validation) == 21
    everybody = split_for(photos, few.with_values({"validation.share": 0.0}))
    assert everybody.train == tuple(photos) and not everybody.validation
    with pytest.raises(UserError, match="3, but there are 3 folds: give 0 to 2"):
        split_for(photos, few.with_values({"validation.fold": 3}))
