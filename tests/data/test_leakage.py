"""Leaks planted one by one between two sides are found, whatever the groups and the split say."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data.pictures import put, scene

from woundray.config import Config
from woundray.data.deduplicate import Pixels, Scene
from woundray.data.image_source import ImageSource, open_image_source
from woundray.data.leakage import LeakError, PhotoScene, find_leaks, refuse_split_leaks
from woundray.data.manifest import Photo
from woundray.data.phantoms.render import write_raw
from woundray.data.prepare import prepare
from woundray.data.split import Split, split_for
from woundray.training import precompute

Change = Callable[[Pixels], Pixels]


def seen(number: int, *, shows: int | None = None, change: Change | None = None, **values: str) -> PhotoScene:
    """A photograph of a patient of its own, or what `values` say of it; it shows the scene of its number or another."""
    name = f"n{number}"
    photo = Photo(Path(f"{number}.png"), "I", values.get("patient", name), group=values.get("group", name))
    pixels = np.asarray(scene(number if shows is None else shows, 96).resize((96, 96)))
    return PhotoScene(photo, Scene.of(np.ascontiguousarray(change(pixels) if change else pixels), None))


TRAIN = [seen(number) for number in range(4)]
TEST = [seen(number) for number in range(10, 13)]
LEAKS = {
    "patient": (seen(20, patient="n1"), ["patient"], "1.png and 20.png are of patient n1"),
    "patient in another spelling": (seen(20, patient="N 01"), ["patient"], "are of patient n1, also called N 01"),
    "group": (seen(20, group="n2"), ["group"], "2.png and 20.png are of group n2"),
    "copy": (seen(20, shows=3), ["copy", "near-duplicate"], "3.png and 20.png are the same picture"),
    "darker": (seen(20, shows=3, change=lambda p: (p * 0.8).astype(np.uint8)), ["near-duplicate"], "near-duplicates"),
    "mirrored": (seen(20, shows=3, change=lambda p: p[:, ::-1]), ["near-duplicate"], "3.png and 20.png are near-dup"),
}


@pytest.mark.parametrize("case", LEAKS.values(), ids=LEAKS.keys())
def test_a_leak_is_named(case: tuple[PhotoScene, list[str], str]) -> None:
    planted, kinds, message = case
    for test in ([planted, *TEST], [*TEST, planted]):
        leaks = list(find_leaks(TRAIN, test))
        assert [leak.kind for leak in leaks] == kinds
        assert message in str(leaks[0])
        assert leaks[0].test == planted.photo


def test_clean_sides_have_none() -> None:
    assert not list(find_leaks(TRAIN, TEST))
    assert not list(find_leaks(TRAIN, []))
    assert not list(find_leaks([], TEST))


def test_names_that_are_apart_by_the_setting_are() -> None:
    assert not list(find_leaks(TRAIN, [seen(20, patient="N 01")], similar_patients="apart"))
    files = [replace(seen(number), photo=Photo(Path(name), "I", name, group=name)) for number, name in
             enumerate(("I/1.png", "I/01.png"))]  # fmt: skip
    assert not list(find_leaks(files[:1], files[1:]))


@pytest.fixture
def photographs(tmp_path: Path) -> Config:
    """Prepared photographs of twelve drawn patients."""
    write_raw(tmp_path / "raw", 12, seed=4, size_px=64)
    prepare(tmp_path / "raw", tmp_path / "data")
    return Config().with_values({"data.root": tmp_path / "data", "phase": "all", "model.resolution": 64})


def by_picture(source: ImageSource) -> Split:
    """The mistake of old: every second picture is held out, whoever its patient is."""
    return Split(source.photos[::2], source.photos[1::2])


def test_a_split_by_picture_is_refused_and_one_by_patient_is_not(photographs: Config) -> None:
    source = open_image_source(photographs)
    few = photographs.with_values({"validation.folds": 1})
    refuse_split_leaks(split_for(source.photos, few), source, photographs.data)
    with pytest.raises(LeakError, match=r"pairs of photographs stand on both sides .* are of patient \d\d\d") as error:
        refuse_split_leaks(by_picture(source), source, photographs.data)
    assert "\n" not in str(error.value)
    refuse_split_leaks(Split(source.photos, ()), source, photographs.data)


def test_pixels_are_believed_and_names_are_not(photographs: Config) -> None:
    source = open_image_source(photographs)
    first, second = source.photos[0], next(p for p in source.photos if p.group != source.photos[0].group)
    pixels = {**source.pixels, second.path: source.pixels[first.path]}
    duplicate = replace(second, box=first.box, sha256="0" * 64)
    split = Split((first,), (duplicate,))
    with pytest.raises(LeakError, match=f"{first.path} and {duplicate.path} are the same picture"):
        refuse_split_leaks(split, replace(source, pixels=pixels), photographs.data)


def test_drawn_wounds_that_look_alike_are_known_to_be_of_different_patients() -> None:
    config = Config().with_values({"data.phantom_patients": 40, "model.resolution": 64})
    source = open_image_source(config)
    for fold in range(3):
        folds = config.with_values({"validation.folds": 3, "validation.fold": fold})
        refuse_split_leaks(split_for(source.photos, folds), source, config.data)
    with pytest.raises(LeakError, match=r"drawn wounds: .* are of patient I0"):
        refuse_split_leaks(by_picture(source), source, config.data)


def test_no_study_begins_with_a_leak(
    micro_config: Config, photographs: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = micro_config.with_values({"data.root": photographs.data.root, "phase": "all"})
    monkeypatch.setattr(
        precompute, "comparable_split", lambda photos, _: Split(tuple(photos[::2]), tuple(photos[1::2]))
    )
    with pytest.raises(LeakError, match="both sides of the split"):
        precompute.precompute(config, tmp_path / "m", device=torch.device("cpu"), progress=lambda *_: None)
    assert not (tmp_path / "m" / "split.json").exists()


@pytest.mark.parametrize("layout", ["a manifest", "a folder a phase"])
def test_near_duplicates_never_part_in_any_layout(tmp_path: Path, layout: str) -> None:
    """Twelve scenes, each as PNG and as the JPEG that a mail program made of it."""
    large = {number: scene(number).resize((160, 160), 0) for number in range(12)}
    put(tmp_path, {f"I/{number}.png": picture for number, picture in large.items()})
    put(tmp_path, {f"I/{number} (1).jpg": picture for number, picture in large.items()})
    if layout == "a manifest":
        names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))
        rows = [f"{name},I,n{place}" for place, name in enumerate(names)]
        (tmp_path / "manifest.csv").write_text("\n".join(["path,phase,patient", *rows]))
    config = Config().with_values({"data.root": tmp_path, "model.resolution": 64})
    source = open_image_source(config)
    assert len(source.photos) == 24
    for seed in range(5):
        split = split_for(source.photos, config.with_values({"reproducibility.seed": seed}))
        scenes = [{photo.path.stem.split()[0] for photo in side} for side in (split.train, split.validation)]
        assert scenes[0] and scenes[1] and not scenes[0] & scenes[1]
        refuse_split_leaks(split, source, config.data)
