"""The measurement of what synthetic pictures do for a classifier."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from woundray.config.section import Section

Ratio = Annotated[float, Field(gt=0, le=20)]


class EffectConfig(Section):
    """`augment`: folds of patients, arms, classifier and statistics. All of it is settled before a result is seen."""

    phases: tuple[Literal["I", "P", "R"], ...] = ("I", "P", "R")
    """Phases that the classifier tells apart, two or more."""
    ratios: tuple[Ratio, ...] = (0.25, 0.5, 1.0, 2.0)
    """Synthetic pictures for each real one, phase by phase: the points of the dose-response curve."""
    primary_ratio: Ratio = 1.0
    """The one of `ratios` that the verdict is about. The best of several is too good by chance: it decides nothing."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Parts that the patients are dealt to; each is the test side once."""
    repeats: Annotated[int, Field(ge=1)] = 1
    """How often the patients are dealt to folds anew (repeated cross-validation). Each deal costs as much as the first;
    four of them halve the part of the interval that comes from who was trained with whom."""
    seeds: Annotated[int, Field(ge=1)] = 5
    """Classifiers of each arm and fold; a seed draws the synthetic pictures and, where it has chance, its training."""
    kappa: Literal["unweighted", "linear", "quadratic"] = "unweighted"
    """Weights of Cohen's kappa that gain and verdict are measured in; the quadratic one is reported in any case."""
    smallest_gain: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Smallest gain in kappa that would matter: an interval within plus and minus this means `no difference`."""
    resamples: Annotated[int, Field(ge=200)] = 5000
    """Bootstrap samples of patients."""
    classifier: str = "lite0"
    """lite0: logistic regression on features of the packaged EfficientNet-Lite0; lite0-finetuned: all its weights;
    a name of torchvision, or timm where it is installed, e.g. resnet50; command: a program of your own."""
    command: str = ""
    """For classifier command: a line that trains and predicts, with {train}, {test}, {predictions} and {seed} in it.
    {train} and {test} are CSV files of pictures; it writes the CSV file {predictions}: picture, phase."""
    regularisation: Annotated[float, Field(gt=0)] = 0.1
    """For lite0: C of the logistic regression, the inverse of its L2 penalty; the same for all arms."""
    steps: Annotated[int, Field(ge=1)] = 400
    """For networks: optimizer updates, the same for all arms."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """For networks: pictures of an update."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    """For networks: peak learning rate of AdamW."""
    views: Annotated[int, Field(ge=1)] = 4
    """Augmented views of each photograph in the control of classical augmentation, beside the plain one."""
    draws_per_picture: Annotated[float, Field(ge=1)] = 1.5
    """Pictures that are drawn for each one wanted, so that the filter can refuse some."""
    search: Annotated[int, Field(ge=0)] = 0
    """Trials of a study for each fold and phase, whose best adapter draws; 0: one training by the settings."""
    concurrent: Annotated[int, Field(ge=0)] = 0
    """Units of work (an adapter, or a fold's classifiers) at one time; 0: as many as CPUs and GPUs hold, by Ray."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.phases)) != len(self.phases) or len(self.phases) < 2:
            raise ValueError(f"phases {', '.join(self.phases)}: name two or three different ones")
        if list(self.ratios) != sorted(set(self.ratios)) or not self.ratios:
            raise ValueError(f"ratios {', '.join(map(str, self.ratios))}: name each once, rising")
        if self.primary_ratio not in self.ratios:
            known = ", ".join(f"{ratio:g}" for ratio in self.ratios)
            raise ValueError(f"primary_ratio {self.primary_ratio:g} is not among the ratios; set it to one of {known}")
        if (self.classifier == "command") != bool(self.command):
            raise ValueError("classifier command and command go together: give both or neither")
        return self
