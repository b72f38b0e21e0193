"""The settings of a run, typed and validated; `layers.py` says where values come from."""

from typing import Any, Literal, Self

from pydantic import ValidationError

from woundray.config.data import DataConfig, PromptsConfig
from woundray.config.effect import EffectConfig
from woundray.config.error_messages import explain, flatten, nest
from woundray.config.model import LoraConfig, ModelConfig
from woundray.config.scoring import (
    CopiesThreshold,
    FilteringConfig,
    HeuristicsConfig,
    MetricsConfig,
    QualityConfig,
    ValidationConfig,
)
from woundray.config.section import Section
from woundray.config.study import StudyConfig
from woundray.config.training import CheckpointingConfig, HardwareConfig, ReproducibilityConfig, TrainingConfig
from woundray.errors import UserError

Phase = Literal["I", "P", "R", "all"]

__all__ = [
    "CheckpointingConfig",
    "Config",
    "CopiesThreshold",
    "DataConfig",
    "EffectConfig",
    "FilteringConfig",
    "HardwareConfig",
    "HeuristicsConfig",
    "LoraConfig",
    "MetricsConfig",
    "ModelConfig",
    "Phase",
    "PromptsConfig",
    "QualityConfig",
    "ReproducibilityConfig",
    "StudyConfig",
    "TrainingConfig",
    "ValidationConfig",
]


class Config(Section):
    """Everything that decides what a run computes."""

    phase: Phase = "I"
    """Healing phase to draw: I inflammatory, P proliferative, R remodeling, or all."""
    model: ModelConfig = ModelConfig()
    lora: LoraConfig = LoraConfig()
    data: DataConfig = DataConfig()
    prompts: PromptsConfig = PromptsConfig()
    training: TrainingConfig = TrainingConfig()
    validation: ValidationConfig = ValidationConfig()
    metrics: MetricsConfig = MetricsConfig()
    quality: QualityConfig = QualityConfig()
    checkpointing: CheckpointingConfig = CheckpointingConfig()
    hardware: HardwareConfig = HardwareConfig()
    reproducibility: ReproducibilityConfig = ReproducibilityConfig()
    study: StudyConfig = StudyConfig()
    effect: EffectConfig = EffectConfig()

    @classmethod
    def from_nested(cls, values: dict[str, Any], *, source: str) -> Self:
        """Validates nested values; dotted names among them are read, too.

        Raises:
            UserError: names `source`, the dotted key and the nearest right one.
        """
        try:
            return cls.model_validate(nest(flatten(values)))
        except ValidationError as error:
            raise UserError(explain(error, cls, source)) from None

    def with_values(self, values: dict[str, Any], *, source: str = "values") -> Self:
        """This configuration with some dotted names changed, e.g. `{"lora.rank": 8}`, validated again.

        Raises:
            UserError: a name that does not exist (with the nearest one that does) or a value out of range.
        """
        return self.from_nested(nest(flatten(self.model_dump()) | values), source=source)

    def flat(self) -> dict[str, Any]:
        """Dotted name -> value, of JSON's types only, in the order of the file."""
        return flatten(self.model_dump(mode="json"))
