"""Settings of `augment`: the gain of a classifier by synthetic pictures."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from woundray.config.section import Section

Ratio = Annotated[float, Field(gt=0, le=20)]


class EffectConfig(Section):
    """Cross-validation, arms, classifier and statistics of `augment`. All are fixed before a result is known."""

    phases: tuple[Literal["I", "P", "R"], ...] = ("I", "P", "R")
    """Classes of the classifier: two or three phases."""
    ratios: tuple[Ratio, ...] = (0.25, 0.5, 1.0, 2.0)
    """Synthetic pictures per real one, in each phase: the points of the dose-response curve."""
    primary_ratio: Ratio = 1.0
    """The ratio, one of `ratios`, that the verdict is about. The best of several would be too good by chance."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Folds of patients in cross-validation; each is the test set once."""
    repeats: Annotated[int, Field(ge=1)] = 1
    """Repeats of the cross-validation, each with a new random assignment of patients to folds. Each costs as much as
    the first; four halve the part of the interval that comes from the assignment."""
    seeds: Annotated[int, Field(ge=1)] = 5
    """Classifiers per arm and fold; a seed selects the synthetic pictures, and seeds the training if it is random."""
    kappa: Literal["unweighted", "linear", "quadratic"] = "unweighted"
    """Weights of Cohen's kappa for gain and verdict; the quadratic kappa is always reported, too."""
    smallest_gain: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Smallest gain in kappa that would matter: an interval within plus and minus this means `no difference`."""
    resamples: Annotated[int, Field(ge=200)] = 5000
    """Bootstrap samples of patients."""
    classifier: str = "lite0"
    """lite0: logistic regression on features of the packaged EfficientNet-Lite0; lite0-finetuned: all its weights are
    trained; a model of torchvision, or of timm if it is installed, e.g. resnet50; command: a program of your own."""
    command: str = ""
    """For classifier command: a command line that trains and predicts, with {train}, {test}, {predictions} and {seed}.
    {train} and {test} are CSV files of pictures; the program writes the CSV file {predictions}: picture, phase."""
    regularisation: Annotated[float, Field(gt=0)] = 0.1
    """For lite0: C of the logistic regression, the inverse of its L2 penalty; the same for all arms."""
    steps: Annotated[int, Field(ge=1)] = 400
    """For networks: optimizer updates, the same for all arms."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """For networks: pictures per update."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    """For networks: peak learning rate of AdamW."""
    views: Annotated[int, Field(ge=1)] = 4
    """Augmented views per photograph in the classical augmentation control, in addition to the plain view."""
    draws_per_picture: Annotated[float, Field(ge=1)] = 1.5
    """Pictures generated per picture needed, so that the filter can reject some."""
    search: Annotated[int, Field(ge=0)] = 0
    """Trials of the study of each fold and phase, whose best adapter generates; 0: one run with the settings."""
    concurrent: Annotated[int, Field(ge=0)] = 0
    """Tasks (an adapter, or a fold's classifiers) at one time; 0: as many as Ray finds CPUs and GPUs for."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.phases)) != len(self.phases) or len(self.phases) < 2:
            raise ValueError(f"phases {', '.join(self.phases)}: give two or three different ones")
        if list(self.ratios) != sorted(set(self.ratios)) or not self.ratios:
            raise ValueError(f"ratios {', '.join(map(str, self.ratios))}: give each once, in rising order")
        if self.primary_ratio not in self.ratios:
            known = ", ".join(f"{ratio:g}" for ratio in self.ratios)
            raise ValueError(f"primary_ratio {self.primary_ratio:g} is not among the ratios; set it to one of {known}")
        if (self.classifier == "command") != bool(self.command):
            raise ValueError("classifier command and command belong together: give both or neither")
        return self
