"""The optimisation of one adapter, and what is kept of it."""

from typing import Annotated, Literal

from pydantic import Field

from woundray.config.section import Section


class TrainingConfig(Section):
    """One run of the training loop."""

    method: Literal["lora", "full"] = "lora"
    """What is trained: a low-rank adapter, or all weights of the UNet (16 bytes a weight more in memory)."""
    epochs: Annotated[int, Field(ge=1)] = 30
    """Epochs at most; early stopping and ASHA may end a run before."""
    last_epoch: Annotated[int, Field(ge=0)] = 0
    """A run ends after this epoch, on the learning rates of a run of all `epochs`; 0: after the last."""
    steps_per_epoch: Annotated[int, Field(ge=0)] = 0
    """Optimizer updates an epoch; 0: as many as it takes to see each photograph once."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Pictures a worker and a forward pass."""
    gradient_accumulation_steps: Annotated[int, Field(ge=1)] = 1
    """Forward passes that are added up before an optimizer update."""
    optimizer: Literal["adamw", "adamw_8bit", "prodigy", "schedule_free_adamw"] = "adamw"
    """adamw: fused AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101). adamw_8bit: moments in 8 bits (Dettmers et al.
    2022, arXiv 2110.02861). prodigy: finds its own step size, set learning_rate 1 (Mishchenko & Defazio 2023, arXiv
    2306.06101). schedule_free_adamw: averages instead of a schedule (Defazio et al. 2024, arXiv 2405.15682)."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-4
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the optimizer's first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the optimizer's second moment."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients with a larger L2 norm are scaled down to it."""
    schedule: Literal["constant", "linear", "cosine", "cosine_with_restarts"] = "cosine"
    """Course of the learning rate after warm-up, over all updates of the run; schedule_free_adamw has none."""
    restarts: Annotated[int, Field(ge=1)] = 3
    """Rounds of cosine_with_restarts (Loshchilov & Hutter 2017, arXiv 1608.03983), of equal length."""
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    """Optimizer updates over which the learning rate rises from 0 to its peak."""
    min_snr_gamma: Annotated[float, Field(ge=0)] = 5.0
    """Loss weight min(SNR, gamma) of Hang et al. 2023 (arXiv 2303.09556); 0: every noise level weighs the same."""
    debiased: bool = False
    """Loss weight 1 / sqrt(SNR) beside it (Yu et al. 2023, arXiv 2310.08442): high noise, where colours and layout are
    decided, weighs more, and adapters learn a clinic's style in fewer updates."""
    noise_offset: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Standard deviation of noise added to whole channels: lets a model learn darker and brighter pictures."""
    perceptual_weight: Annotated[float, Field(ge=0)] = 0.05
    """Weight of the distance of decoded x0 estimates in feature space, at low-noise steps; 0: no such term."""
    perceptual_max_timestep: Annotated[int, Field(ge=1, le=1000)] = 300
    """The perceptual term sees noise levels below this timestep only: above it x0 is a blur."""
    perceptual_decoder: Literal["auto", "vae", "tiny"] = "auto"
    """What decodes the x0 estimates: the VAE, or an AutoencoderTiny (taesd, taesdxl) at a tenth of its cost;
    auto: the tiny one where it is staged."""
    perceptual_network: Literal["auto", "lite0", "vgg16"] = "auto"
    """Whose features the perceptual term compares, in fp32: the packaged EfficientNet-Lite0, or VGG16; auto: VGG16
    where it is staged."""
    perceptual_batch: Annotated[int, Field(ge=1)] = 2
    """Pictures of each batch at most that the perceptual term decodes."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the averaged adapter, ramped up as min(decay, (1 + step) / (10 + step)); 0: no averaging."""
    prior_weight: Annotated[float, Field(ge=0)] = 0.0
    """DreamBooth's prior preservation (Ruiz et al. 2023, arXiv 2208.12242, eq. 2): weight of the loss on the base
    model's own pictures of prompts.prior; 0: none. With training.method full it is DreamBooth as published."""
    prior_pictures: Annotated[int, Field(ge=1)] = 100
    """Pictures that the base model draws for prior preservation."""
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
    """GPUs of one worker, parts of one allowed; auto: 1, a part where more workers than GPUs share them, or 0 where the
    cluster has none and its autoscaler brings none."""
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1.0
    """CPU cores of one worker."""
    tf32: bool = True
    """Let GPUs round fp32 factors of matrix products and convolutions to 10 bits (TF32); sums stay fp32."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Threads of one worker's CPU arithmetic; 0: cpus_per_worker, rounded up."""
