"""Search space: a YAML file with one line per setting, read into a function that Optuna calls for each trial.

    lora.rank: {choice: [4, 8, 16]}                 one of a list
    lora.dropout: {uniform: [0.0, 0.2]}             between two numbers
    training.learning_rate: {log: [1.0e-5, 1.0e-3]} between two numbers, even on a logarithmic scale
    training.warmup_steps: {int: [0, 200]}          a whole number, both ends included
    training.perceptual_max_timestep: {int: [100, 500], when: {training.perceptual_weight: {above: 0}}}

A setting with `when` is searched only in trials where an earlier setting has one of the listed values, or is `above` a
number; in other trials it keeps the configuration's value.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from woundray.config import Config
from woundray.config.error_messages import nearest
from woundray.config.layers import packaged, read_yaml
from woundray.errors import UserError

if TYPE_CHECKING:
    import optuna

Value = str | int | float | bool


_KINDS = ("choice", "uniform", "log", "int")
_SEARCHED = ("lora.", "training.", "prompts.dropout")
_FIXED = ("training.epochs", "training.steps_per_epoch")  # trials are compared at equal epochs


@dataclass(frozen=True)
class Condition:
    """Condition on an earlier parameter's value under which a parameter is searched."""

    name: str
    values: tuple[Value, ...] = ()
    above: float | None = None

    def holds(self, values: dict[str, Value]) -> bool:
        """Return whether it holds for the values so far; False if the earlier parameter is not among them."""
        if self.name not in values:
            return False
        value = values[self.name]
        if self.above is None:
            return value in self.values
        return isinstance(value, int | float) and value > self.above


@dataclass(frozen=True)
class Parameter:
    """Searched setting: the values of a choice, or the two ends of a range."""

    name: str
    kind: Literal["choice", "uniform", "log", "int"]
    values: tuple[Value, ...]
    when: Condition | None = None

    def suggest(self, trial: "optuna.Trial") -> Value:
        """Draw a value from Optuna."""
        if self.kind == "choice":
            chosen: Value = trial.suggest_categorical(self.name, self.values)  # type: ignore[assignment]
            return chosen
        low, high = self.values
        if self.kind == "int":
            return trial.suggest_int(self.name, int(low), int(high))
        return trial.suggest_float(self.name, float(low), float(high), log=self.kind == "log")

    def project(self, value: Value) -> Value:
        """Return the value of the space nearest to a given one; without a distance, the first choice."""
        if self.kind == "choice":
            if value in self.values or not isinstance(value, int | float):
                return value if value in self.values else self.values[0]
            numbers = [choice for choice in self.values if isinstance(choice, int | float)]
            return min(numbers, key=lambda choice: abs(choice - value), default=self.values[0])
        low, high = self.values
        nearest_value = min(max(float(value), float(low)), float(high))
        return round(nearest_value) if self.kind == "int" else nearest_value


@dataclass(frozen=True)
class SearchSpace:
    """Parameters of a study; callable as a define-by-run function of Optuna, and can be pickled."""

    source: str
    parameters: tuple[Parameter, ...]

    def __call__(self, trial: "optuna.Trial") -> dict[str, Any]:
        """Draw the values of a trial, by dotted name."""
        values: dict[str, Value] = {}
        for parameter in self.parameters:
            if parameter.when is None or parameter.when.holds(values):
                values[parameter.name] = parameter.suggest(trial)
        return values

    def nearest_to(self, config: Config) -> dict[str, Value]:
        """Return the point of the space nearest to a configuration, which a study tries first."""
        settings, values = config.flat(), dict[str, Value]()
        for parameter in self.parameters:
            if parameter.when is None or parameter.when.holds(values):
                values[parameter.name] = parameter.project(settings[parameter.name])
        return values


def load_search_space(name: str, base: Config) -> SearchSpace:
    """Read a search space, and check each name and bound against the configuration.

    Args:
        name: a packaged space (`lora`), or a YAML file.
        base: configuration of the study.

    Raises:
        UserError: with the file and the dotted name of the setting that is wrong.
    """
    path = _path(name)
    parameters: dict[str, Parameter] = {}
    for dotted, written in read_yaml(path).items():
        parameters[str(dotted)] = _parameter(path, str(dotted), written, base, parameters)
    if not parameters:
        raise UserError(f"{path}: no setting to search; write a line such as lora.rank: {{choice: [4, 8]}}")
    return SearchSpace(str(path), tuple(parameters.values()))


def _path(name: str) -> Path:
    """Return the file of a search space."""
    if Path(name).suffix in (".yaml", ".yml"):
        return Path(name)
    folder = packaged("search_spaces")
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise UserError(f"study.space: {name} is not one of {', '.join(known)}, nor a .yaml file{nearest(name, known)}")
    return folder / f"{name}.yaml"


def _parameter(path: Path, name: str, written: Any, base: Config, earlier: dict[str, Parameter]) -> Parameter:
    """Read one line of the file."""
    field = f"{path}: {name}"
    known = base.flat()
    if name not in known:
        raise UserError(f"{field} is not a setting{nearest(name, known)}")
    if not name.startswith(_SEARCHED) or name in _FIXED:
        raise UserError(
            f"{field} must be the same in all trials; leave it out: searched can be lora.*, training.*, prompts.dropout"
        )
    kinds = [kind for kind in _KINDS if isinstance(written, dict) and kind in written]
    if len(kinds) != 1:
        raise UserError(f"{field} should have one of choice, uniform, log, int, as in {{uniform: [0.0, 0.2]}}")
    others = [str(key) for key in written if key not in (kinds[0], "when")]
    if others:
        raise UserError(f"{field}: {others[0]} is not one of choice, uniform, log, int, when")

    kind: Any = kinds[0]

    def typed(setting: str, value: Any) -> Value:
        """Convert a value of the file to the type of its setting."""
        read: Value = base.with_values({setting: value}, source=str(path)).flat()[setting]
        return read

    values = _values(field, kind, written[kind], known[name], partial(typed, name))
    for value in values:
        typed(name, value)
    when = _condition(field, written["when"], earlier, typed) if "when" in written else None
    return Parameter(name, kind, values, when)


def _values(field: str, kind: str, written: Any, default: Value, typed: Callable[[Any], Value]) -> tuple[Value, ...]:
    """Read the list of values of a line."""
    if not isinstance(written, list) or not written:
        raise UserError(f"{field}: {kind} should be a list, not {written!r}")
    if kind == "choice":
        values = tuple(typed(value) for value in written if isinstance(value, Value))
        if len(set(values)) < len(written):
            raise UserError(f"{field}: choice should list different numbers, words or true/false, not {written!r}")
        return values
    values = tuple(_number(value) for value in written)
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) != 2 or len(values) != 2 or numbers[0] >= numbers[1]:
        raise UserError(f"{field}: {kind} should be [lowest, highest], not {written!r}")
    if kind == "int" and any(number != int(number) for number in numbers):
        raise UserError(f"{field}: int should have whole numbers, not {written!r}")
    if kind == "log" and numbers[0] <= 0:
        raise UserError(f"{field}: log should begin above 0, not at {numbers[0]:g}")
    if kind != "int" and isinstance(default, int):
        raise UserError(f"{field} takes whole numbers: use int instead of {kind}")
    return tuple(int(number) for number in numbers) if kind == "int" else tuple(float(n) for n in numbers)


def _number(value: Any) -> Any:
    """Convert text to a number; return anything else unchanged."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return value
    return number if math.isfinite(number) else value


def _condition(
    field: str, written: Any, earlier: dict[str, Parameter], typed: Callable[[str, Any], Value]
) -> Condition:
    """Read the `when` of a line."""
    if not isinstance(written, dict) or len(written) != 1:
        raise UserError(f"{field}: when should be {{earlier.setting: [values]}} or {{earlier.setting: {{above: 0}}}}")
    [(name, test)] = written.items()
    if name not in earlier:
        raise UserError(f"{field}: when: {name} is not searched on a line above{nearest(str(name), earlier)}")
    if isinstance(test, dict) and list(test) == ["above"] and isinstance(_number(test["above"]), int | float):
        return Condition(name, above=float(test["above"]))
    if isinstance(test, list) and test:
        values = tuple(typed(name, value) for value in test)
        missing = [value for value in values if earlier[name].kind == "choice" and value not in earlier[name].values]
        if missing:
            raise UserError(f"{field}: when: {missing[0]!r} is not among the choices of {name}")
        return Condition(name, values=values)
    raise UserError(f"{field}: when: {name} should have a list of values or {{above: number}}, not {test!r}")
