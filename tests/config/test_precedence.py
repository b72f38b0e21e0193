"""A value in a --config FILE is used unless the same setting is given on the command line."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml

from woundray.augment import Augment
from woundray.cli.command import Command, parse
from woundray.config import Config
from woundray.config.error_messages import fields, names
from woundray.doctor import Doctor
from woundray.errors import UserError
from woundray.train import Train
from woundray.tune import Tune

BESIDE = {"effect.primary_ratio": {"effect.ratios": [0.5, 1.0]}, "effect.command": {"effect.classifier": "command"}}
"""What a setting needs beside it to be valid."""

TEXTS = ("no", "001")  # YAML's own guess makes false and 1 of them


def candidates(kind: Any, default: Any) -> Iterator[Any]:
    """Values of a type, some of which may be out of a setting's range."""
    if get_origin(kind) is Literal:
        yield from get_args(kind)
    elif get_origin(kind) is tuple:
        yield from ([0.5, 1.0], ["I", "R"], ["knn"], ["to_q", "no"])
    elif kind is bool:
        yield from (True, False)
    else:
        base = default if isinstance(default, int | float) else 1
        yield from (base + 1, base + 8, base / 2, 0.5, 2.5, *TEXTS, "some/place # 1", "resnet50", "command")


def others(name: str) -> list[Any]:
    """Two valid values of a setting that are not the one of the demo profile, as JSON has them."""
    info, default = fields(Config)[name], DEMO[name]
    found = []
    for value in candidates(info.annotation, default):
        try:
            settled = CONFIG.with_values({**BESIDE.get(name, {}), name: value}).flat()[name]
        except UserError:
            continue
        if settled != default and settled not in found:
            found.append(settled)
    return found[:2]


def words(value: Any) -> list[str]:
    """How a value is typed."""
    parts = value if isinstance(value, list) else [value]
    return [str(part).lower() if isinstance(part, bool) else str(part) for part in parts]


CONFIG = parse(Tune, []).settings
DEMO = CONFIG.flat()


@pytest.mark.parametrize("name", names(Config))
def test_every_setting_of_a_file_holds_and_what_is_typed_goes_over_it(name: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    written, *rest = others(name)
    file.write_text(yaml.safe_dump({**BESIDE.get(name, {}), name: written}))
    command = parse(Tune, ["--config", str(file)])
    assert command.settings.flat()[name] == written
    assert command.typed[name] == written

    typed = DEMO[name] if DEMO[name] is not None and name not in BESIDE else (rest or [written])[0]
    command = parse(Tune, ["--config", str(file), f"--{name}", *words(typed)])
    assert command.settings.flat()[name] == typed
    assert command.typed[name] == typed


@pytest.mark.parametrize(
    ("command_type", "name"),
    [(kind, name) for kind in (Tune, Train, Augment, Doctor) for name in kind().shortcuts()],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_short_flag_that_was_not_typed_leaves_the_file_alone(
    command_type: type[Command], name: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    value = others(name)[0]
    file.write_text(yaml.safe_dump({name: value}))
    assert parse(command_type, ["--config", str(file)]).settings.flat()[name] == value


def test_the_phase_of_a_file_has_the_settings_of_that_phase(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("phase: R\n")
    settings = parse(Tune, ["--config", str(file)]).settings
    assert settings.phase == "R" and "remodeling" in settings.prompts.positive
    settings = parse(Tune, ["--config", str(file), "--phase", "I"]).settings
    assert settings.phase == "I" and "inflammatory" in settings.prompts.positive


def test_a_file_may_ask_for_a_profile(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("profile: sd15\ntraining.epochs: 7\n")
    command = parse(Tune, ["--config", str(file)])
    assert (command.settings.model.base, command.settings.training.epochs, command.profile) == ("sd15", 7, "sd15")
    assert command.typed["training.batch_size"] == 16  # of a profile that was asked for by name
    command = parse(Tune, ["--config", str(file), "--profile", "demo"])
    assert (command.settings.model.base, command.settings.training.epochs) == ("tiny", 7)
    assert parse(Tune, ["--config", str(file), "--profile", "auto"]).settings.model.base == "tiny"
    file.write_text("profile: demmo\n")
    with pytest.raises(UserError, match=r"mine\.yaml: profile: demmo is not one of .*; did you mean demo"):
        parse(Tune, ["--config", str(file)])


def test_photographs_of_a_file_and_of_a_flag(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("data: {root: here}\nlora.rank: 3\n")
    assert parse(Tune, ["--config", str(file)]).settings.data.root == Path("here")
    with caplog.at_level(logging.INFO, "woundray"):
        command = parse(Tune, ["--config", str(file), "--data", "there", "--lora.rank", "3"])
    assert command.settings.data.root == Path("there")
    assert f"flags go over {file}: data.root" in caplog.messages  # lora.rank is the same in both


def test_what_was_typed_is_known_by_its_dotted_name() -> None:
    command = parse(Tune, ["--trials", "3", "--lora.target_modules", "to_q", "to_k", "--phase", "I"])
    assert command.typed == {"study.trials": 3, "lora.target_modules": ["to_q", "to_k"], "phase": "I"}
    assert parse(Tune, []).typed == {}
