"""Settings of a run: typed, validated, immutable. `layers.py` merges defaults, files and flags."""

from typing import Any, Literal, Self

from pydantic import ValidationError

from woundray.config.data import DataConfig, PromptsConfig
from woundray.config.effect import EffectConfig
from woundray.config.error_messages import explain, flatten, nest
from woundray.config.model import LoraConfig, ModelConfig
from woundray.config.quality import CopiesThreshold, FilteringConfig, HeuristicsConfig, QualityConfig
from woundray.config.section import Section
from woundray.config.study import StudyConfig
from woundray.config.training import CheckpointingConfig, HardwareConfig, ReproducibilityConfig, TrainingConfig
from woundray.config.validation import MetricsConfig, ValidationConfig
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
    """All settings of a run, by section."""

    phase: Phase = "I"
    """Healing phase to generate: I inflammatory, P proliferative, R remodeling, or all."""
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
        """Validate nested values; dotted names among them are accepted, too.

        Raises:
            UserError: names `source`, the dotted key and the nearest valid one.
        """
        try:
            return cls.model_validate(nest(flatten(values)))
        except ValidationError as error:
            raise UserError(explain(error, cls, source)) from None

    def with_values(self, values: dict[str, Any], *, source: str = "values") -> Self:
        """Return a copy with some settings changed by dotted name, e.g. `{"lora.rank": 8}`, validated again.

        Raises:
            UserError: an unknown name (with the nearest known one), or a value out of range.
        """
        return self.from_nested(nest(flatten(self.model_dump()) | values), source=source)

    def flat(self) -> dict[str, Any]:
        """Return dotted name -> value, with JSON types only, in the order of the file."""
        return flatten(self.model_dump(mode="json"))
