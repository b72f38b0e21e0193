"""Layers of the configuration, and messages of mistakes in them."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from woundray.config import Config
from woundray.config.error_messages import flatten, names, nest
from woundray.config.layers import PHASE_FILES, load, packaged, read_yaml
from woundray.errors import UserError

USERS_KEYS = {
    "model",
    "lora",
    "data",
    "training",
    "prompts",
    "quality",
    "checkpointing",
    "metrics",
    "hardware",
    "reproducibility",
    "validation",
}


def test_each_layer_goes_over_the_one_before(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("training:\n  batch_size: 3\n  epochs: 7\nlora.rank: 5\n")
    config = load("P", profile="demo", file=file, flags={"training.epochs": 9})
    assert Config().training.warmup_steps != config.training.warmup_steps == 8  # profile over default
    assert "proliferative" in config.prompts.positive  # phase
    assert (config.training.batch_size, config.lora.rank) == (3, 5)  # file, nested and dotted
    assert config.training.epochs == 9  # flag over file
    assert config.phase == "P"


@pytest.mark.parametrize("phase", PHASE_FILES)
@pytest.mark.parametrize("profile", [path.stem for path in packaged("configs").glob("profiles/*.yaml")])
def test_every_packaged_file_is_valid(phase: str, profile: str) -> None:
    assert load(phase, profile=profile).phase == phase


def test_the_users_sections_are_there() -> None:
    assert Config.model_fields.keys() >= USERS_KEYS


def test_every_setting_has_its_help() -> None:
    def check(model: type, prefix: str) -> None:
        for name, field in model.model_fields.items():  # type: ignore[attr-defined]
            if hasattr(field.annotation, "model_fields"):
                check(field.annotation, f"{prefix}{name}.")
            else:
                assert field.description, f"{prefix}{name} has no docstring"

    check(Config, "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lora: {rnak: 8}", "lora.rnak is not a setting; did you mean lora.rank?"),
        ("lora: {rank: many}", "lora.rank should be a valid integer"),
        ("lora: {rank: 0}", "lora.rank should be greater than or equal to 1, not 0"),
        ("training: {lerning_rate: 0.1}", "did you mean training.learning_rate?"),
        ("rank: 8", "rank is not a setting; did you mean lora.rank?"),
        ("lora: 3", "lora is a group of settings, such as lora.rank, and has no value of its own"),
        ("data: photos", "data is a group of settings, such as data.root, and has no value of its own"),
        ("data: {margin_min: 0.9}", "margin_min 0.9 is above margin_max 0.25"),
        ("lora: {rank: 4}\nlora: {alpha: 3}", "line 2: lora comes twice; leave one out"),
        ("lora: {rank: 4}\nlora.rank: 8", "lora.rank comes twice, as '4' and as '8'"),
        ("prompts: {positive: ~}", "prompts.positive should be a valid string, not null; in quotes it is a word"),
        ("training: {weight_decay: .inf}", "training.weight_decay should be"),
        ("study: {output: ''}", "study.output is empty; give a path, or leave it out"),
        ("phase: X", "phase should be 'I', 'P', 'R' or 'all', not X"),
        ("phase: [I]", "phase should be 'I', 'P', 'R' or 'all', not ['I']"),
        (f"prompts.positive: {'x' * 6001}", "prompts.positive String should have at most 6000 characters"),
        ("- 3", "should hold `key: value` lines, not a list"),
        ("a: [", "not YAML"),
        ("{{phase}}: I", "not YAML"),
    ],
)
def test_a_mistake_is_one_line_that_names_file_key_and_mend(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        load(profile="demo", file=file)
    assert str(file) in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_or_profile_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: No such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="did you mean sd21"):
        load("I", profile="sd12")


def test_a_written_configuration_reads_back_as_itself(tmp_path: Path) -> None:
    config = load("R", profile="sd21", flags={"lora.target_modules": ["to_q"], "data.root": tmp_path})
    text = yaml.safe_dump(config.model_dump(mode="json"))
    assert Config.from_nested(yaml.safe_load(text), source="file") == config


@given(st.dictionaries(st.sampled_from(names(Config)), st.integers()))
def test_dotted_and_nested_names_are_the_same(values: dict[str, int]) -> None:
    assert flatten(nest(values)) == values


def test_a_configuration_is_read_with_dotted_names_among_nested_ones() -> None:
    config = Config.from_nested({"phase": "P", "lora.rank": "8", "study": {"name": "mine"}}, source="file")
    assert (config.phase, config.lora.rank, config.study.name) == ("P", 8, "mine")


def test_with_values_validates_again() -> None:
    assert Config().with_values({"lora.rank": 8}).lora.rank == 8
    with pytest.raises(UserError, match=r"did you mean lora\.rank"):
        Config().with_values({"lora.rnk": 8})
    with pytest.raises(UserError, match="greater than or equal to 1"):
        Config().with_values({"lora.rank": -1})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lora:\n  rank: !!int x\n", "not YAML"),
        ("lora:\n  alpha: !!float a\n", "not YAML"),
        ("study:\n  name: !!timestamp 5\n", "not YAML"),
        ("lora: &a\n  rank: *a\n", "an anchor holds itself"),
    ],
)
def test_a_tag_or_anchor_that_can_not_be_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=f"c.yaml: {said}"):
        load("I", profile="demo", file=file)
