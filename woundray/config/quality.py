"""Settings of quality: thresholds on scores, the image filter, and its heuristics."""

from typing import Annotated, Literal, Self

from pydantic import Field

from woundray.config.section import Section, Share


class FilteringConfig(Section):
    """Image filter: which generated pictures are kept."""

    enabled: bool = True
    """Filter every picture; otherwise all are kept."""
    strategy: Literal["all", "any", "min_passing"] = "all"
    """A picture is kept if it passes all, any, or at least min_passing_metrics of `metrics`."""
    min_passing_metrics: Annotated[int, Field(ge=1)] = 2
    """For strategy min_passing: number of metrics that a picture has to pass."""
    metrics: tuple[Literal["knn", "copies", "ssim", "lpips"], ...] = ("knn", "copies")
    """Metrics of the filter; heuristics must always pass. ssim > 0.70 would reject 98 % of real photographs."""


class FidThreshold(Section):
    """Threshold on the Fréchet Inception distance (FID) of a set."""

    enabled: bool = True
    """Apply this threshold."""
    max_threshold: Annotated[float, Field(gt=0)] = 50.0
    """At most this."""


class SsimThreshold(Section):
    """Threshold on structural similarity (SSIM) to the most similar photograph."""

    enabled: bool = True
    """Apply this threshold."""
    min_threshold: Annotated[float, Field(ge=-1, le=1)] = 0.70
    """At least this."""


class LpipsThreshold(Section):
    """Threshold on perceptual distance (LPIPS) to the most similar photograph."""

    enabled: bool = True
    """Apply this threshold, if the network's weights are staged."""
    max_threshold: Annotated[float, Field(gt=0)] = 0.30
    """At most this."""
    network: Literal["alex", "vgg", "squeeze"] = "alex"
    """Backbone of LPIPS."""


class InceptionScoreThreshold(Section):
    """Threshold on the inception score of a set."""

    enabled: bool = True
    """Apply this threshold."""
    min_threshold: Annotated[float, Field(ge=1)] = 2.0
    """At least this."""


class KnnThreshold(Section):
    """Calibrated threshold on the distance to the nearest real photographs: is a picture wound-like?"""

    neighbours: Annotated[int, Field(ge=1)] = 3
    """Number of nearest training photographs whose mean cosine distance is taken, on lite0_head features."""
    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Threshold of a picture: this quantile of the photographs' distances to those of other patients."""
    min_share: Share = 0.80
    """Threshold of a set: at least this share of its pictures passes."""


class CopiesThreshold(Section):
    """Calibrated test for copies: compares generated pictures and held-out photographs with training photographs."""

    false_alarm_rate: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Share of held-out photographs that the threshold of one picture flags as copies."""
    p_value: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """A set is flagged if so many flagged pictures are less likely than this by chance (Fisher's exact test)."""


class BlankHeuristic(Section):
    """Check for pictures that are almost all black or white."""

    enabled: bool = True
    """Reject them."""
    max_black_ratio: Share = 0.95
    """Largest share of pixels below 5 % of full brightness."""
    max_white_ratio: Share = 0.95
    """Largest share of pixels above 95 % of full brightness."""


class BrightnessHeuristic(Section):
    """Check for pictures that are too dark or too bright."""

    enabled: bool = True
    """Reject them."""
    min_mean_brightness: Share = 0.05
    """Smallest mean brightness, 0 to 1."""
    max_mean_brightness: Share = 0.95
    """Largest mean brightness, 0 to 1."""


class SaturationHeuristic(Section):
    """Check for pictures of a single colour."""

    enabled: bool = True
    """Reject them."""
    min_std_saturation: Share = 0.01
    """Smallest standard deviation over pixels of (max - min) / max of the three channels."""


class HeuristicsConfig(Section):
    """Simple checks of one picture; each must pass."""

    check_blank_images: BlankHeuristic = BlankHeuristic()
    check_brightness: BrightnessHeuristic = BrightnessHeuristic()
    check_saturation: SaturationHeuristic = SaturationHeuristic()


class PhaseThresholds(Section):
    """Thresholds of one phase; empty: those of all phases."""

    fid: Annotated[float, Field(gt=0)] | None = None
    """Replaces fid.max_threshold."""
    ssim: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Replaces ssim.min_threshold."""
    lpips: Annotated[float, Field(gt=0)] | None = None
    """Replaces lpips.max_threshold."""
    inception_score: Annotated[float, Field(ge=1)] | None = None
    """Replaces inception_score.min_threshold."""


class PhaseOverrides(Section):
    """Thresholds of single phases."""

    I: PhaseThresholds = PhaseThresholds()  # noqa: E741
    P: PhaseThresholds = PhaseThresholds()
    R: PhaseThresholds = PhaseThresholds()


class CachingConfig(Section):
    """Cache of the photographs' features between evaluations."""

    enabled: bool = True
    """Keep features in the folder `features` of the study, by hash of pictures and network."""


class ReportingConfig(Section):
    """Files that an evaluation writes in addition to its table."""

    save_rejection_report: bool = True
    """List rejected pictures and reasons in the JSON file."""
    save_rejected_images: bool = True
    """Write rejected pictures, and suspected copies beside their photographs."""
    max_rejected_images_to_save: Annotated[int, Field(ge=0)] = 50
    """Largest number of each that is written."""


class QualityConfig(Section):
    """Thresholds on scores. Each is reported beside the score of real photographs; see docs/scores.md."""

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
        """Return the settings with the thresholds of a phase (I, P, R) applied; unchanged for any other phase."""
        if phase not in PhaseOverrides.model_fields:
            return self
        thresholds: PhaseThresholds = getattr(self.phase_specific, phase)
        limits = {"fid": "max_threshold", "ssim": "min_threshold"}
        limits |= {"lpips": "max_threshold", "inception_score": "min_threshold"}
        given = {name: value for name, value in thresholds.model_dump().items() if value is not None}
        return self.model_copy(
            update={name: getattr(self, name).model_copy(update={limits[name]: value}) for name, value in given.items()}
        )
