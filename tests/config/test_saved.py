"""A config.yaml of version 0.1 is read with its present names; a user's own file with an old name is refused."""

from pathlib import Path

import pytest

from woundray.config import Config
from woundray.config.error_messages import RENAMED, names
from woundray.config.layers import load
from woundray.config.saved import read_saved_config
from woundray.errors import UserError
from woundray.training.checkpoint import write_config

CONFIG = Config().with_values(
    {"data.duplicate_correlation": 0.87, "metrics.baseline_repeats": 7, "effect.repeats": 4, "lora.rank": 5}
)


def test_a_saved_configuration_of_this_version_is_read_as_it_is(tmp_path: Path) -> None:
    write_config(CONFIG, tmp_path)
    assert read_saved_config(tmp_path / "config.yaml") == CONFIG


def test_a_saved_configuration_of_version_0_1_is_read_by_its_present_names(tmp_path: Path) -> None:
    write_config(CONFIG, tmp_path)
    file = tmp_path / "config.yaml"
    text = file.read_text()
    for old, new in RENAMED.items():
        leaf = new.rpartition(".")[2]
        assert text.count(f"  {leaf}: ") == 1
        text = text.replace(f"  {leaf}: ", f"  {old.rpartition('.')[2]}: ")
    assert "  likeness: 0.87\n" in text and "  floor_repeats: 7\n" in text and "  deals: 4\n" in text
    file.write_text(text)
    assert read_saved_config(file) == CONFIG


def test_the_present_names_are_settings_and_the_old_ones_are_not() -> None:
    assert set(RENAMED.values()) <= set(names(Config))
    assert not RENAMED.keys() & set(names(Config))


def test_a_mistake_in_a_saved_file_names_it(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("lora: {rnak: 3}\n")
    with pytest.raises(UserError, match=r"config\.yaml: lora\.rnak is not a setting; did you mean lora\.rank\?"):
        read_saved_config(tmp_path / "config.yaml")


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_users_file_with_an_old_name_is_refused_with_the_present_one(old: str, new: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    section, leaf = old.split(".")
    file.write_text(f"{section}:\n  {leaf}: 1\n")
    with pytest.raises(UserError) as caught:
        load(profile="demo", file=file)
    assert str(caught.value) == f"{file}: {old} is not a setting; did you mean {new}?"
