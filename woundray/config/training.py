"""The optimisation of one adapter, and what is kept of it."""

from typing import Annotated, Literal

from pydantic import Field

from woundray.config.base import Section


class TrainingConfig(Section):
    """One run of the training loop."""

    epochs: Annotated[int, Field(ge=1)] = 30
    """Epochs at most; early stopping and ASHA may end a run before."""
    steps_per_epoch: Annotated[int, Field(ge=0)] = 0
    """Optimizer updates an epoch; 0: as many as it takes to see each photograph once."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Pictures a worker and a forward pass."""
    gradient_accumulation_steps: Annotated[int, Field(ge=1)] = 1
    """Forward passes that are added up before an optimizer update."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-4
    """Peak learning rate of AdamW."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay of AdamW (Loshchilov & Hutter 2019)."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of AdamW's first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of AdamW's second moment."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients with a larger L2 norm are scaled down to it."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Course of the learning rate after warm-up, over all optimizer updates of the run."""
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    """Optimizer updates over which the learning rate rises from 0 to its peak."""
    min_snr_gamma: Annotated[float, Field(ge=0)] = 5.0
    """Loss weight min(SNR, gamma) of Hang et al. 2023 (arXiv 2303.09556); 0: every noise level weighs the same."""
    noise_offset: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Standard deviation of noise added to whole channels: lets a model learn darker and brighter pictures."""
    perceptual_weight: Annotated[float, Field(ge=0)] = 0.05
    """Weight of the distance of decoded x0 estimates in feature space, at low-noise steps; 0: no such term."""
    perceptual_max_timestep: Annotated[int, Field(ge=1, le=1000)] = 300
    """The perceptual term sees noise levels below this timestep only: above it x0 is a blur."""
    perceptual_batch: Annotated[int, Field(ge=1)] = 2
    """Pictures of each batch at most that the perceptual term decodes."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the averaged adapter, ramped up as min(decay, (1 + step) / (10 + step)); 0: no averaging."""
    early_stopping_patience: Annotated[int, Field(ge=0)] = 8
    """Epochs without a better score after which a run ends; 0: never."""
    early_stopping_min_delta: Annotated[float, Field(ge=0)] = 0.0
    """A score counts as better if it is lower by more than this."""


class CheckpointingConfig(Section):
    """What is kept of a run. A checkpoint is a folder `epoch_0005`; `best` and `latest` point to two of them."""

    keep_last: Annotated[int, Field(ge=1)] = 2
    """Newest checkpoints that stay on disk, beside the best one."""


class ReproducibilityConfig(Section):
    """Where randomness comes from."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of initial adapters, noise, order of pictures, search and everything else that is drawn."""


class HardwareConfig(Section):
    """What one run is given of the machine or cluster."""

    workers: Annotated[int, Field(ge=1)] = 1
    """Processes of one run that train in parallel (DDP)."""
    gpus_per_worker: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """GPUs of one worker, fractions allowed; auto: 1 where the cluster has one, else 0."""
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1.0
    """CPU cores of one worker."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Threads of one worker's CPU arithmetic; 0: cpus_per_worker, rounded up."""
