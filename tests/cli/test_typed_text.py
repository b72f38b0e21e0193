"""What a user typed is what the settings, config.yaml, MLflow's parameters and a picture's metadata hold."""

import io
import itertools
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from woundray.cli.command import parse, read_flags
from woundray.config import Config
from woundray.config.error_messages import fields, names
from woundray.config.layers import read_yaml
from woundray.generate import Generate
from woundray.generation.generator import Origin
from woundray.generation.picture_folder import (
    GeneratedImage,
    PictureFolder,
    provenance,
    read_origins,
)
from woundray.sampling.png_files import encode_png
from woundray.tracking.connection import connect
from woundray.tracking.journal import TrialStarted
from woundray.tracking.mlflow_runs import MlflowRuns
from woundray.tracking.run_context import TrackedStudy
from woundray.training.checkpoint import write_config
from woundray.tune import Tune

TEXTS = [name for name in names(Config) if fields(Config)[name].annotation is str and not name.startswith("effect.")]

NASTY = [
    "a wound # with slough",
    "@sks wound",
    "*wound*",
    '"sks" ulcer',
    "it's",
    "no",
    "2",
    "001",
    "1e-4",
    "2026-11-28",
    "12:30",
    "null",
    "~",
    "",
    " ",
    "--x",
    "-1",
    "a: b, [c] {d} | > % & !",
    "= =",
    "${HOME} {train} %s \\n",
    "two\nlines\r\n\ttab",
    "geschwür 創傷 🩹\x85\u2028\ufeff",
]

NUMBERS = itertools.count()

typed_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("text", NASTY)
def test_a_text_setting_is_taken_as_it_is(name: str, text: str) -> None:
    assert parse(Tune, [f"--{name}={text}"]).settings.flat()[name] == text
    if not text.startswith("--"):
        assert parse(Tune, [f"--{name}", text]).settings.flat()[name] == text


@pytest.mark.parametrize("text", NASTY)
def test_a_prompt_of_generate_is_taken_as_it_is(text: str) -> None:
    assert read_flags(Generate, ["--from", "best", f"--prompt={text}"], prog="generate").prompt == text


@given(text=typed_texts)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_config_yaml_holds_what_was_typed(tmp_path: Path, text: str) -> None:
    command = parse(Tune, [f"--{name}={text}" for name in TEXTS] + ["--lora.target_modules", "to_q", f"x{text}"])
    write_config(command.settings, tmp_path)
    again = Config.from_nested(read_yaml(tmp_path / "config.yaml"), source="config.yaml")
    assert again == command.settings
    assert parse(Tune, ["--config", str(tmp_path / "config.yaml")]).settings == command.settings
    assert {again.flat()[name] for name in TEXTS} == {text}


@pytest.mark.parametrize("text", ["no", "on", "2", "001", "1e-4", "1_000", "0x10", "2026-11-28", "12:30", ".inf", "="])
def test_a_word_in_a_file_is_no_number_and_no_date(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"prompts:\n  positive: {text}\nstudy.name: {text}\nlora.target_modules: [{text}]\n")
    config = parse(Tune, ["--config", str(file)]).settings
    assert (config.prompts.positive, config.study.name, config.lora.target_modules) == (text, text, (text,))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> MlflowRuns:
    """A tracking database; making one takes seconds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MlflowRuns(uri, TrackedStudy("typed", {}, {}, nested=False), "typed")


@pytest.mark.filterwarnings("ignore")  # MLflow's client and its database
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=typed_texts)
@example("".join(NASTY))
@example("")
@example(" ")
@example("001")
@example("x" * 6000)
def test_mlflow_holds_what_was_typed(runs: MlflowRuns, text: str) -> None:
    config = parse(Tune, [f"--{name}={text}" for name in TEXTS]).settings
    trial = f"trial-{next(NUMBERS)}"
    runs.apply(TrialStarted(trial=trial, number=1, values={}, settings=config.flat()))
    client = connect(runs.uri)
    experiments = [found.experiment_id for found in client.search_experiments()]
    [run] = client.search_runs(experiments, f"tags.trial_id = '{trial}'")
    assert {run.data.params[name] for name in TEXTS} == {text}


ORIGIN = Origin("source", "0" * 64, "tiny", "I", "", "", 64, 2, 1.0, 1)


@given(text=typed_texts)
@example("".join(NASTY))
@example("")
def test_a_picture_and_its_manifest_hold_what_was_typed(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    origin = replace(ORIGIN, prompt=text, negative_prompt=f"no {text}", base=text)
    picture = GeneratedImage(torch.zeros(3, 8, 8, dtype=torch.uint8), 1, origin, {})
    with Image.open(io.BytesIO(encode_png(picture.pixels, provenance(picture)))) as opened:
        opened.load()
        assert opened.text["prompt"] == text  # type: ignore[attr-defined]
        assert opened.text["negative_prompt"] == f"no {text}"  # type: ignore[attr-defined]
    picture_folder = PictureFolder(tmp_path_factory.mktemp("pictures"))
    picture_folder.add([picture])
    assert list(read_origins(picture_folder.folder / "manifest.csv")) == [origin]
