"""Images in a folder: generated once, filtered, kept with their origin, and generated again from the manifest alone."""

import csv
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from adapters import write_checkpoint
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from numpy.typing import NDArray
from PIL import Image
from torch.nn.modules.module import register_module_forward_pre_hook

from woundray.checkpoints.find import EVALUATION
from woundray.checkpoints.generate import SamplingOptions
from woundray.config import Config
from woundray.data.manifest import read_dataset
from woundray.data.phantoms.render import write_raw
from woundray.data.prepare import prepare
from woundray.errors import Stopped, UserError
from woundray.generation.fill_folder import count_missing, fill_folder, find_sources
from woundray.generation.generate_until_enough import CheckpointSource, FilterOptions, GenerationRequest
from woundray.generation.generator import ImageGenerator, origin_of
from woundray.generation.pass_rate import PassRate
from woundray.generation.picture_folder import GeneratedImage, PictureFolder
from woundray.generation.regenerate import regenerate
from woundray.system.atomic_files import write_json
from woundray.weights.diffusers_layout import WEIGHTS_NAME


def quiet(*_: object) -> None: ...


@pytest.fixture(scope="module")
def checkpoints(micro_base: Path, micro_config: Config, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        phase: write_checkpoint(folder / phase, micro_base, micro_config.with_values({"phase": phase}), seed=seed)
        for seed, phase in enumerate("IP")
    }


def add(folder: Path, checkpoint: Path, options: SamplingOptions, *, filtered: bool = False) -> PassRate:
    sources = [CheckpointSource(checkpoint, str(checkpoint))]
    filter_options = FilterOptions(keep_rejected=2) if filtered else None
    return fill_folder(folder, sources, GenerationRequest(options, filter_options), progress=quiet)[0]


def rows(folder: Path, name: str = "manifest.csv") -> list[dict[str, str]]:
    with (folder / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pixels(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path))


def by_seed(folder: Path) -> dict[str, NDArray[np.uint8]]:
    return {row["seed"]: pixels(folder / row["path"]) for row in rows(folder)}


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_picture_depends_on_its_seed_alone(checkpoints: dict[str, Path], tmp_path: Path, batch_size: int) -> None:
    many, one = tmp_path / "many", tmp_path / "one"
    add(many, checkpoints["I"], SamplingOptions(7, 10, batch_size=batch_size))
    add(one, checkpoints["I"], SamplingOptions(1, 14, batch_size=batch_size))
    assert np.array_equal(by_seed(many)["14"], by_seed(one)["14"])
    generated = list(by_seed(many).values())
    assert len(generated) == 7 and not any(np.array_equal(a, b) for a, b in pairwise(generated))


def test_all_batches_have_one_shape(checkpoints: dict[str, Path]) -> None:
    """Others round differently: by what a picture shares its batch with, it would change."""
    origin = replace(origin_of(checkpoints["I"], "", SamplingOptions(5)), batch_size=3)  # as on a GPU
    image_generator = ImageGenerator(checkpoints["I"], origin)
    widths = set()

    def note(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, UNet2DConditionModel):
            widths.add(len(inputs[0]))

    hook = register_module_forward_pre_hook(note)
    try:
        assert len(image_generator.generate(range(5))) == 5
    finally:
        hook.remove()
    assert widths == {3}


def test_pictures_are_drawn_again_from_the_manifest_alone(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder, alone = tmp_path / "pictures", tmp_path / "alone"
    add(folder, checkpoints["I"], SamplingOptions(5, 3, steps=3, guidance_scale=2.0, prompt="a wound, größer"))
    add(folder, checkpoints["P"], SamplingOptions(4, batch_size=3))
    expected = {(row["phase"], row["seed"]): pixels(folder / row["path"]) for row in rows(folder)}
    alone.mkdir()
    (folder / "manifest.csv").rename(alone / "manifest.csv")
    assert regenerate(alone / "manifest.csv", alone / "again", tmp_path, "", quiet) == (9, 9)
    add(
        alone, checkpoints["I"], SamplingOptions(6, 3, steps=3, guidance_scale=2.0, prompt="a wound, größer")
    )  # more beside them
    for (phase, seed), picture in expected.items():
        [path] = (alone / "again").glob(f"{phase}_*_seed_{int(seed):05d}.png")
        assert np.array_equal(pixels(path), picture)


def test_another_adapter_in_the_same_place_is_noticed(micro_base: Path, micro_config: Config, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "a", micro_base, micro_config)
    add(tmp_path / "pictures", checkpoint, SamplingOptions(1))
    write_checkpoint(tmp_path / "b", micro_base, micro_config, seed=1)
    (tmp_path / "b" / WEIGHTS_NAME).rename(checkpoint / WEIGHTS_NAME)
    with pytest.raises(UserError, match="holds other weights now"):
        regenerate(tmp_path / "pictures/manifest.csv", tmp_path / "again", tmp_path, "", quiet)


def test_files_say_what_they_are(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    add(tmp_path, checkpoints["I"], SamplingOptions(1, 5, prompt="größer"))
    [row] = rows(tmp_path)
    with Image.open(tmp_path / row["path"]) as picture:
        texts = picture.text  # type: ignore[attr-defined]
    assert texts["synthetic"] == "true" and "not a photograph" in texts["Description"]
    assert (texts["seed"], texts["prompt"], texts["source"]) == ("5", "größer", str(checkpoints["I"]))
    assert texts["weights_sha256"] == row["weights_sha256"] and len(row["weights_sha256"]) == 64


def test_the_folder_is_a_data_set_and_raw_photographs(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    add(folder, checkpoints["I"], SamplingOptions(12))
    add(folder, checkpoints["P"], SamplingOptions(3))
    dataset = read_dataset(folder)
    assert [photo.phase for photo in dataset.photos] == ["I"] * 12 + ["P"] * 3
    prepared = prepare(folder, tmp_path / "prepared")
    assert not prepared.left_out and len({(p.patient, p.visit, p.ulcer) for p in prepared.photos}) == 15
    assert sorted(photo.phase for photo in prepared.photos) == ["I"] * 12 + ["P"] * 3
    # what a view of the wound's box with its margin cuts out is the whole picture, give or take a rounding
    box, side = dataset.photos[0].box, 64
    assert box is not None and (box[2] - box[0]) * 1.3 == pytest.approx(side, abs=2)


def test_no_picture_bears_a_patients_number(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    picture_folder = PictureFolder(tmp_path, patients={1, 970, 971})
    origin = origin_of(checkpoints["I"], "here", SamplingOptions(1))
    blank = torch.zeros(3, 64, 64, dtype=torch.uint8)
    picture_folder.add([GeneratedImage(blank, seed, origin, {}) for seed in range(3)])
    assert {row["patient"] for row in picture_folder.rows} == {"972"}
    with pytest.raises(UserError, match="no patient number left for phase I"):
        PictureFolder(tmp_path / "full", set(range(900, 1000))).add([GeneratedImage(blank, 0, origin, {})])


def test_photographs_are_not_added_to(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", 8, seed=0, size_px=64)
    prepare(tmp_path / "raw", tmp_path / "data")
    with pytest.raises(UserError, match="lists photographs"):
        add(tmp_path / "data", checkpoints["I"], SamplingOptions(1))
    (tmp_path / "data/manifest.csv").unlink()
    for folder in ("data", "raw"):
        with pytest.raises(UserError, match=f"{folder} holds pictures, such as .*: drawn ones would mix with them"):
            add(tmp_path / folder, checkpoints["I"], SamplingOptions(1))


def test_a_folder_is_filled_up(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    add(tmp_path, checkpoints["I"], SamplingOptions(3))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("Depth_RGB/*")}
    pass_rate = add(tmp_path, checkpoints["I"], SamplingOptions(5))
    assert (pass_rate.existing, pass_rate.kept) == (3, 2)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert [row["seed"] for row in rows(tmp_path)] == list("01234")


def test_refused_pictures_are_listed_with_their_reasons(micro_base: Path, micro_config: Config, tmp_path: Path) -> None:
    """An untrained model draws nothing like a wound: the filter refuses all of it, and few of the photographs."""
    config = micro_config.with_values({"quality.copies.false_alarm_rate": 0.2})
    pass_rate = add(
        tmp_path / "p", write_checkpoint(tmp_path / "c", micro_base, config), SamplingOptions(1), filtered=True
    )
    assert (pass_rate.kept, pass_rate.missing, pass_rate.generated) == (0, 1, 20)
    assert pass_rate.refused_photographs is not None and pass_rate.refused_photographs < 0.6
    assert "given up after 20 pictures, 1 short of 1" in str(pass_rate)
    refused = rows(tmp_path / "p", "rejected.csv")
    assert len(refused) == 20 and all("knn" in row["reason"] and "not ≤" in row["reason"] for row in refused)
    assert len(list((tmp_path / "p/rejected").glob("*.png"))) == 2  # `keep`
    assert pass_rate.reasons and all(
        times == sum(name in row["reason"] for row in refused) for name, times in pass_rate.reasons.items()
    )


def test_pictures_that_pass_are_kept_until_there_are_enough(
    checkpoints: dict[str, Path], micro_base: Path, micro_config: Config, tmp_path: Path
) -> None:
    """Judged by brightness alone, at a limit that about half of the pictures hold."""
    image_generator = ImageGenerator(checkpoints["I"], origin_of(checkpoints["I"], "", SamplingOptions(1)))
    means = (image_generator.generate(range(16)).float() / 255).mean(dim=(1, 2, 3))
    limit = float(means.median()) + 1e-6
    settings = {"quality.filtering.metrics": [], "quality.heuristics.check_brightness.max_mean_brightness": limit}
    config = micro_config.with_values(settings)
    checkpoint = write_checkpoint(tmp_path / "c", micro_base, config)
    pass_rate = add(tmp_path / "p", checkpoint, SamplingOptions(6), filtered=True)
    passing = [seed for seed, mean in enumerate(means) if mean <= limit][:6]
    assert [int(row["seed"]) for row in rows(tmp_path / "p")] == passing
    assert (pass_rate.kept, pass_rate.generated) == (6, passing[-1] + 1)
    assert {row["reason"] for row in rows(tmp_path / "p", "rejected.csv")} == {"brightness"}


def test_phases_are_filled_up_to_one_number(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", 12, seed=0, size_px=64)
    have = [photo.phase for photo in prepare(tmp_path / "raw", tmp_path / "data").photos]
    sources = [CheckpointSource(checkpoints[phase], "") for phase in "IP"]
    total = max(have.count(phase) for phase in "IPR") + 2
    fill_folder(
        tmp_path / "p",
        sources,
        GenerationRequest(SamplingOptions(1), data=tmp_path / "data"),
        balance=total,
        progress=quiet,
    )
    generated = [row["phase"] for row in rows(tmp_path / "p")]
    assert all(have.count(phase) + generated.count(phase) == total for phase in "IP")
    assert max(count_missing(["I", "P"], 0, tmp_path / "data")) > 0
    with pytest.raises(UserError, match="one checkpoint for each of the phases"):
        count_missing(["I", "I"], 10, tmp_path / "data")


def test_a_folder_is_its_own_reference(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    [source] = find_sources([str(checkpoints["I"])], tmp_path, "")
    assert source == CheckpointSource(checkpoints["I"], str(checkpoints["I"]))
    assert replace(source, reference="x").phase == "I"


def test_drawing_ends_when_too_few_pictures_pass_and_counts_what_is_known(
    micro_base: Path, micro_config: Config, tmp_path: Path
) -> None:
    """By the rule of three 0 of 59 is below 1 in 20 with 95 % confidence; an earlier evaluation counts."""
    config = micro_config.with_values({"validation.sampling_steps": 1})
    checkpoint = write_checkpoint(tmp_path / "c", micro_base, config)
    alone = add(tmp_path / "alone", checkpoint, SamplingOptions(20), filtered=True)
    assert 59 <= alone.generated < 59 + 16
    assert "each picture would take more than 20 tries" in str(alone)
    (checkpoint / EVALUATION).parent.mkdir()
    write_json({"pictures": 48, "scores": [{"name": "usable", "value": 0.0}]}, checkpoint / EVALUATION)
    known = add(tmp_path / "known", checkpoint, SamplingOptions(20), filtered=True)
    assert known.generated == 16 and "and 0 of the 48 that were evaluated" in str(known)
    other = add(tmp_path / "other", checkpoint, SamplingOptions(20, prompt="a foot"), filtered=True)
    assert other.generated == alone.generated  # it was not that which was evaluated


def test_ctrl_c_says_what_is_kept(micro_base: Path, micro_config: Config, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(
        tmp_path / "c", micro_base, micro_config.with_values({"validation.sampling_steps": 1})
    )
    messages: list[str] = []

    def interrupt(progress: str, done: int, total: int, note: str = "", /) -> None:
        messages.append(note)
        if "16 drawn" in note:
            raise KeyboardInterrupt

    with pytest.raises(Stopped, match=r"kept 0 of 40, 16 drawn; refused 16 unlike a wound.*the same command goes on"):
        fill_folder(
            tmp_path / "p",
            [CheckpointSource(checkpoint, "")],
            GenerationRequest(SamplingOptions(40), FilterOptions()),
            progress=interrupt,
        )
    assert "kept 0 of 40, 0 drawn" in messages


def test_the_time_left_follows_from_what_passes() -> None:
    pass_rate = PassRate("I", 20, tries=20, generated=40, kept=10, refused_photographs=0.06)
    assert pass_rate.progress(60.0) == "kept 10 of 20, 40 drawn; about 60 s left"
    assert not pass_rate.too_few_pass()
    assert (
        PassRate("I", 20, tries=20, generated=10, refused_photographs=0.06)
        .progress(10.0)
        .endswith("at most about 6 min left")
    )


def test_few_tries_do_not_give_an_adapter_up_that_draws_what_is_wanted() -> None:
    assert not PassRate("I", 100, tries=1, generated=16, kept=15, refused_photographs=0.06).too_few_pass()
    assert PassRate("I", 100, tries=1, generated=64, kept=0, refused_photographs=0.06).too_few_pass()
    assert not PassRate("I", 100, tries=1000, generated=64, kept=0, refused_photographs=0.06).too_few_pass()
