"""How a run is judged: held-out patients, pictures an epoch, scores and thresholds."""

from typing import Annotated, Literal, Self

from pydantic import Field

from woundray.config.section import Section

Share = Annotated[float, Field(ge=0, le=1)]


class ValidationConfig(Section):
    """What each epoch is judged on."""

    share: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of patients that no training step sees; 0: none, and nothing is judged (see `tune --refit`)."""
    folds: Annotated[int, Field(ge=0, le=10)] = 0
    """Folds of patients of which one is held out instead of `share`; a study trains its finalists anew with each other
    fold held out, so that every photograph judges. 1: none; 0: 3 where fewer photographs would be held out than
    pictures are drawn."""
    fold: Annotated[int, Field(ge=0)] = 0
    """Which fold is held out, from 0."""
    loss_draws: Annotated[int, Field(ge=1)] = 2
    """Fixed draws of noise and timestep a held-out picture in the validation loss."""
    pictures: Annotated[int, Field(ge=2)] = 64
    """Pictures drawn each epoch, with the same seeds in every epoch and trial."""
    sampling_steps: Annotated[int, Field(ge=1, le=1000)] = 20
    """Steps of DPM-Solver++ a picture (Lu et al. 2022, arXiv 2211.01095)."""
    guidance_scale: Annotated[float, Field(ge=0)] = 3.0
    """Strength of classifier-free guidance; 1: none."""
    signal_leak: bool = True
    """Begin pictures with colours and layout of the distribution of the training photographs, as the last noise step
    of training does (Everaert et al. 2024, arXiv 2309.15842), and not with noise alone. Those of the base model, which
    all are compared to, begin with noise alone."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Pictures drawn and scored at a time."""
    weights: Literal["ema", "raw", "both"] = "both"
    """Weights that an epoch is judged by: the moving average, the raw ones, or both at twice the time, of which the
    better ones become the epoch's checkpoint."""
    grid: Annotated[int, Field(ge=1)] = 16
    """Pictures in the grid that each epoch logs."""


class MetricsConfig(Section):
    """The scores of an epoch."""

    objective: Literal["auto", "fid", "fd_lite0", "validation_loss"] = "auto"
    """The score that a study and early stopping minimise; auto: fid where Inception's weights are staged, else
    fd_lite0."""
    baseline_repeats: Annotated[int, Field(ge=2)] = 20
    """Random splits of real photographs from which the real-against-real floor is estimated."""


class FilteringConfig(Section):
    """Which pictures are good enough to be used."""

    enabled: bool = True
    """Judge every picture; else all of them count as usable."""
    strategy: Literal["all", "any", "min_passing"] = "all"
    """A picture is kept if it passes all, any, or at least min_passing_metrics of `metrics`."""
    min_passing_metrics: Annotated[int, Field(ge=1)] = 2
    """For min_passing: how many."""
    metrics: tuple[Literal["knn", "copies", "ssim", "lpips"], ...] = ("knn", "copies")
    """What a picture is judged by; heuristics must hold always. ssim > 0.70 would refuse 98 % of real photographs."""


class FidThreshold(Section):
    """Threshold on the Frechet Inception distance of a set."""

    enabled: bool = True
    """Judge by it."""
    max_threshold: Annotated[float, Field(gt=0)] = 50.0
    """At most this."""


class SsimThreshold(Section):
    """Threshold on structural similarity to the most similar photograph."""

    enabled: bool = True
    """Judge by it."""
    min_threshold: Annotated[float, Field(ge=-1, le=1)] = 0.70
    """At least this."""


class LpipsThreshold(Section):
    """Threshold on perceptual distance to the most similar photograph."""

    enabled: bool = True
    """Judge by it, where the network's weights are staged."""
    max_threshold: Annotated[float, Field(gt=0)] = 0.30
    """At most this."""
    network: Literal["alex", "vgg", "squeeze"] = "alex"
    """Trunk of LPIPS."""


class InceptionScoreThreshold(Section):
    """Threshold on the inception score of a set."""

    enabled: bool = True
    """Judge by it."""
    min_threshold: Annotated[float, Field(ge=1)] = 2.0
    """At least this."""


class KnnThreshold(Section):
    """Calibrated: a picture is wound-like if it lies as near to real pictures as those lie to one another."""

    neighbours: Annotated[int, Field(ge=1)] = 3
    """Mean cosine distance to this many nearest training photographs, on lite0_head features."""
    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Threshold of a picture: this quantile of the photographs' own distances to those of other patients."""
    min_share: Share = 0.80
    """Threshold of a set: at least this share of its pictures within the bar."""


class CopiesThreshold(Section):
    """Calibrated: a set copies if more of its pictures look like training photographs than unseen ones do."""

    false_alarm_rate: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Share of held-out photographs that the threshold on one picture accuses."""
    p_value: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """A set is flagged if so many accused pictures are less likely than this by chance (Fisher's exact test)."""


class BlankHeuristic(Section):
    """Pictures that are all black or all white."""

    enabled: bool = True
    """Refuse them."""
    max_black_ratio: Share = 0.95
    """Largest share of pixels below 5 % of full brightness."""
    max_white_ratio: Share = 0.95
    """Largest share of pixels above 95 % of full brightness."""


class BrightnessHeuristic(Section):
    """Pictures that are too dark or too bright."""

    enabled: bool = True
    """Refuse them."""
    min_mean_brightness: Share = 0.05
    """Smallest mean, 0 to 1."""
    max_mean_brightness: Share = 0.95
    """Largest mean, 0 to 1."""


class SaturationHeuristic(Section):
    """Flat pictures: one colour."""

    enabled: bool = True
    """Refuse them."""
    min_std_saturation: Share = 0.01
    """Smallest standard deviation over pixels of (max - min) / max of the three channels."""


class HeuristicsConfig(Section):
    """Simple checks of one picture; each must hold."""

    check_blank_images: BlankHeuristic = BlankHeuristic()
    check_brightness: BrightnessHeuristic = BrightnessHeuristic()
    check_saturation: SaturationHeuristic = SaturationHeuristic()


class PhaseThresholds(Section):
    """Thresholds of one phase; empty: as for all."""

    fid: Annotated[float, Field(gt=0)] | None = None
    """Instead of fid.max_threshold."""
    ssim: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Instead of ssim.min_threshold."""
    lpips: Annotated[float, Field(gt=0)] | None = None
    """Instead of lpips.max_threshold."""
    inception_score: Annotated[float, Field(ge=1)] | None = None
    """Instead of inception_score.min_threshold."""


class PhaseOverrides(Section):
    """Thresholds that differ between phases."""

    I: PhaseThresholds = PhaseThresholds()  # noqa: E741
    P: PhaseThresholds = PhaseThresholds()
    R: PhaseThresholds = PhaseThresholds()


class CachingConfig(Section):
    """Features of photographs, kept between evaluations."""

    enabled: bool = True
    """Keep them in `features` in the study's folder, by the content of pictures and network."""


class ReportingConfig(Section):
    """What an evaluation leaves beside its table."""

    save_rejection_report: bool = True
    """List in the JSON file which pictures were refused, and why."""
    save_rejected_images: bool = True
    """Write refused pictures, and suspected copies beside their photographs."""
    max_rejected_images_to_save: Annotated[int, Field(ge=0)] = 50
    """At most so many of each."""


class QualityConfig(Section):
    """Thresholds on scores, each reported beside what real photographs score; see docs/scores.md."""

    filtering: FilteringConfig = FilteringConfig()
    fid: FidThreshold = FidThreshold()
    ssim: SsimThreshold = SsimThreshold()
    lpips: LpipsThreshold = LpipsThreshold()
    inception_score: InceptionScoreThreshold = InceptionScoreThreshold()
    knn: KnnThreshold = KnnThreshold()
    copies: CopiesThreshold = CopiesThreshold()
    heuristics: HeuristicsConfig = HeuristicsConfig()
    phase_specific: PhaseOverrides = PhaseOverrides()
    caching: CachingConfig = CachingConfig()
    reporting: ReportingConfig = ReportingConfig()

    def of_phase(self, phase: str) -> Self:
        """The thresholds with those of a phase (I, P, R) laid over them; any other phase changes nothing."""
        if phase not in PhaseOverrides.model_fields:
            return self
        thresholds: PhaseThresholds = getattr(self.phase_specific, phase)
        limits = {"fid": "max_threshold", "ssim": "min_threshold"}
        limits |= {"lpips": "max_threshold", "inception_score": "min_threshold"}
        given = {name: value for name, value in thresholds.model_dump().items() if value is not None}
        return self.model_copy(
            update={name: getattr(self, name).model_copy(update={limits[name]: value}) for name, value in given.items()}
        )
