"""Search spaces: draws of Optuna, and messages for mistakes in the file."""

import pickle
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from woundray.config import Config
from woundray.config.layers import load, packaged
from woundray.errors import UserError
from woundray.search.search_space import Condition, Parameter, SearchSpace, load_search_space

SPACE = """
lora.rank: {choice: [4, 8, 16]}
lora.dropout: {uniform: [0.0, 0.2]}
training.learning_rate: {log: [1e-5, 1.0e-3]}
training.warmup_steps: {int: [0, 50]}
training.perceptual_weight: {choice: [0.0, 0.05]}
training.perceptual_max_timestep: {int: [100, 500], when: {training.perceptual_weight: {above: 0}}}
training.perceptual_batch: {int: [1, 4], when: {lora.rank: [4, 16]}}
"""


def write(folder: Path, text: str) -> str:
    path = folder / "space.yaml"
    path.write_text(text)
    return str(path)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    return load_search_space(write(tmp_path_factory.mktemp("space"), SPACE), Config())


@given(seed=st.integers(0, 2**31 - 1))
def test_what_is_drawn_is_a_configuration_within_the_bounds(space: SearchSpace, seed: int) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    values = space(study.ask())
    config = Config().with_values(values)
    assert config.lora.rank in (4, 8, 16)
    assert 0 <= config.lora.dropout <= 0.2
    assert 1e-5 <= config.training.learning_rate <= 1e-3
    assert 0 <= config.training.warmup_steps <= 50
    assert ("training.perceptual_max_timestep" in values) == (config.training.perceptual_weight > 0)
    assert ("training.perceptual_batch" in values) == (config.lora.rank in (4, 16))


def test_a_logarithmic_range_is_drawn_evenly_over_its_decades(space: SearchSpace) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    rates = [space(study.ask())["training.learning_rate"] for _ in range(400)]
    assert 0.4 < sum(rate < 1e-4 for rate in rates) / len(rates) < 0.6


@given(rate=st.floats(1e-8, 1.0), rank=st.integers(1, 1024), weight=st.floats(0, 10))
def test_the_first_point_is_in_the_space_and_none_is_nearer(
    space: SearchSpace, rate: float, rank: int, weight: float
) -> None:
    given_values = {"training.learning_rate": rate, "lora.rank": rank, "training.perceptual_weight": weight}
    point = space.nearest_to(Config().with_values(given_values))
    assert space(optuna.trial.FixedTrial(point)) == point  # Optuna takes it as it is
    assert point["training.learning_rate"] == min(max(rate, 1e-5), 1e-3)
    assert abs(int(point["lora.rank"]) - rank) == min(abs(choice - rank) for choice in (4, 8, 16))


def test_values_of_a_file_have_the_types_of_their_settings(tmp_path: Path) -> None:
    text = """
training.learning_rate: {choice: [1e-4, 2e-4]}
lora.use_dora: {choice: [no, yes]}
lora.rank: {choice: [4, "8"]}
lora.alpha: {choice: [4, 8]}
training.schedule: {choice: [linear, cosine]}
training.weight_decay: {log: [1e-4, 1e-2], when: {training.learning_rate: [0.0001]}}
lora.dropout: {uniform: [0, 1e-1], when: {lora.use_dora: [true]}}
training.warmup_steps: {int: [0, 5], when: {training.learning_rate: {above: 1e-5}}}
"""
    space = load_search_space(write(tmp_path, text), Config())
    values = [parameter.values for parameter in space.parameters[:5]]
    assert repr(values) == repr([(1e-4, 2e-4), (False, True), (4, 8), (4.0, 8.0), ("linear", "cosine")])
    conditions = [parameter.when for parameter in space.parameters[5:]]
    assert [condition.values for condition in conditions if condition] == [(1e-4,), (True,), ()]
    assert conditions[-1] == Condition("training.learning_rate", above=1e-5)


def test_a_condition_on_what_was_not_drawn_does_not_hold() -> None:
    assert not Condition("lora.rank", values=(4,)).holds({})


def test_a_choice_of_words_falls_back_on_the_first() -> None:
    parameter = Parameter("training.schedule", "choice", ("linear", "cosine"))
    assert parameter.project("constant") == "linear"
    assert parameter.project("cosine") == "cosine"


def test_a_space_can_be_pickled(space: SearchSpace) -> None:
    assert pickle.loads(pickle.dumps(space)) == space


@pytest.mark.parametrize("name", [path.stem for path in packaged("search_spaces").glob("*.yaml")])
def test_packaged_spaces_fit_their_profiles(name: str) -> None:
    config = load("I", profile="demo" if name == "demo" else "sd21")
    point = load_search_space(name, config).nearest_to(config)
    assert config.with_values(dict(point)) == config  # the profile itself is a point of its space


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lora.rnk: {choice: [4]}", "lora.rnk is not a setting; did you mean lora.rank"),
        ("lora: {rank: {choice: [4]}}", "lora is not a setting"),
        ("lora.rank: {choice: [0, 4]}", "lora.rank should be greater than or equal to 1"),
        ("lora.rank: {uniform: [4, 8]}", "lora.rank takes whole numbers: use int"),
        ("lora.rank: {int: [4.5, 8]}", "lora.rank: int should have whole numbers"),
        ("lora.dropout: {uniform: [0.0, 1.5]}", "lora.dropout should be less than 1"),
        ("lora.dropout: {uniform: [0.2, 0.0]}", r"lora.dropout: uniform should be \[lowest, highest\]"),
        ("lora.dropout: {log: [0.0, 0.2]}", "lora.dropout: log should begin above 0"),
        ("lora.dropout: {uniform: 0.2}", "lora.dropout: uniform should be a list"),
        ("lora.dropout: {normal: [0.0, 0.2]}", "lora.dropout should have one of choice"),
        ("lora.dropout: {uniform: [0.0, 0.2], if: 3}", "lora.dropout: if is not one of"),
        ("lora.rank: {choice: [4, 4]}", "lora.rank: choice should list different"),
        ("study.trials: {int: [1, 4]}", "study.trials must be the same in all trials"),
        ("training.epochs: {int: [1, 4]}", "training.epochs must be the same in all trials"),
        (
            "lora.rank: {int: [4, 8], when: {lora.alpha: [4]}}",
            "when: lora.alpha is not searched on a line above",
        ),
        (
            "lora.rank: {choice: [4]}\nlora.alpha: {int: [1, 2], when: {lora.rank: [5]}}",
            "5 is not among the choices",
        ),
        ("lora.rank: {int: [4, .inf]}", r"lora.rank: int should be \[lowest, highest\]"),
        ("lora.rank: {choice: [4, x]}", "lora.rank should be a valid integer, not x"),
        ("lora.rank: {choice: [4]}\nlora.rank: {choice: [8]}", "line 2: lora.rank comes twice"),
        ("lora.rank: [4, 8", "not YAML"),
        ("", "no setting to search"),
    ],
)
def test_a_mistake_is_one_line_with_file_and_setting(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"^.*space\.yaml: .*{message}") as error:
        load_search_space(write(tmp_path, text), Config())
    assert "\n" not in str(error.value)


def test_an_unknown_packaged_space_is_answered_with_the_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"study\.space: lorra is not one of demo, lora"):
        load_search_space("lorra", Config())
    with pytest.raises(UserError, match=r"missing\.yaml"):
        load_search_space(str(tmp_path / "missing.yaml"), Config())
