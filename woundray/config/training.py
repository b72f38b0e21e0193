"""Settings of training: optimizer, losses, checkpoints, seed and hardware of a run."""

from typing import Annotated, Literal

from pydantic import Field

from woundray.config.section import Section


class TrainingConfig(Section):
    """Training of one adapter, or of all weights of the UNet."""

    method: Literal["lora", "full"] = "lora"
    """Weights that are trained: a low-rank adapter (LoRA), or the whole UNet (16 bytes of memory more per weight)."""
    epochs: Annotated[int, Field(ge=1)] = 30
    """Largest number of epochs; early stopping and ASHA may end a run earlier."""
    last_epoch: Annotated[int, Field(ge=0)] = 0
    """End the run after this epoch, with the learning rates of a run of all `epochs`; 0: after the last epoch."""
    steps_per_epoch: Annotated[int, Field(ge=0)] = 0
    """Optimizer updates per epoch; 0: as many as it takes to use each photograph once."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Micro-batch: pictures per worker and forward pass."""
    gradient_accumulation_steps: Annotated[int, Field(ge=1)] = 1
    """Forward passes whose gradients are summed for an optimizer update."""
    optimizer: Literal["adamw", "adamw_8bit", "prodigy", "schedule_free_adamw"] = "adamw"
    """adamw: fused AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101). adamw_8bit: moments in 8 bits (Dettmers et al.
    2022, arXiv 2110.02861). prodigy: adapts the step size itself, set learning_rate 1 (Mishchenko & Defazio 2023, arXiv
    2306.06101). schedule_free_adamw: averaging replaces the schedule (Defazio et al. 2024, arXiv 2405.15682)."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-4
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the optimizer's first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the optimizer's second moment."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradient clipping: largest L2 norm of all gradients."""
    schedule: Literal["constant", "linear", "cosine", "cosine_with_restarts"] = "cosine"
    """Learning rate schedule after warm-up, over all updates of the run; schedule_free_adamw has none."""
    restarts: Annotated[int, Field(ge=1)] = 3
    """Cycles of cosine_with_restarts (Loshchilov & Hutter 2017, arXiv 1608.03983), of equal length."""
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    """Warm-up: optimizer updates over which the learning rate rises from 0 to its peak."""
    min_snr_gamma: Annotated[float, Field(ge=0)] = 5.0
    """Loss weight min(SNR, gamma) of Hang et al. 2023 (arXiv 2303.09556); 0: all noise levels have the same weight."""
    debiased: bool = False
    """Additional loss weight 1 / sqrt(SNR) (Yu et al. 2023, arXiv 2310.08442): more weight on high noise levels, which
    determine colours and layout; adapters learn a clinic's style in fewer updates."""
    noise_offset: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Standard deviation of extra noise that is constant over a channel: helps to learn dark and bright pictures."""
    perceptual_weight: Annotated[float, Field(ge=0)] = 0.05
    """Weight of the perceptual loss, a distance of decoded x0 estimates in feature space; 0: none."""
    perceptual_max_timestep: Annotated[int, Field(ge=1, le=1000)] = 300
    """The perceptual loss applies to timesteps below this one only: above it, x0 estimates are blurred."""
    perceptual_decoder: Literal["auto", "vae", "tiny"] = "auto"
    """Decoder of the x0 estimates: the VAE, or an AutoencoderTiny (taesd, taesdxl) at a tenth of the cost;
    auto: the tiny one if it is staged."""
    perceptual_network: Literal["auto", "lite0", "vgg16"] = "auto"
    """Feature network of the perceptual loss, in fp32: the packaged EfficientNet-Lite0, or VGG16; auto: VGG16
    if it is staged."""
    perceptual_batch: Annotated[int, Field(ge=1)] = 2
    """Largest number of pictures per batch that the perceptual loss decodes."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the exponential moving average (EMA) of the weights, ramped up as min(decay, (1 + step) / (10 + step));
    0: no average."""
    prior_weight: Annotated[float, Field(ge=0)] = 0.0
    """Prior preservation of DreamBooth (Ruiz et al. 2023, arXiv 2208.12242, eq. 2): weight of the loss on the base
    model's own pictures of prompts.prior; 0: none. With training.method full it is DreamBooth as published."""
    prior_pictures: Annotated[int, Field(ge=1)] = 100
    """Pictures that the base model generates for prior preservation."""
    early_stopping_patience: Annotated[int, Field(ge=0)] = 8
    """Early stopping: end a run after this many epochs without a better score; 0: never."""
    early_stopping_min_delta: Annotated[float, Field(ge=0)] = 0.0
    """Early stopping: a score is better if it is lower by more than this."""


class CheckpointingConfig(Section):
    """Checkpoints of a run: folders such as `epoch_0005`; `best` and `latest` are links to two of them."""

    keep_last: Annotated[int, Field(ge=1)] = 2
    """Number of newest checkpoints that are kept on disk, in addition to the best one."""


class ReproducibilityConfig(Section):
    """Random seed."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of everything random: initial adapter, noise, timesteps, order of pictures, search."""


class HardwareConfig(Section):
    """Resources of one run: processes, GPUs, CPUs, threads."""

    workers: Annotated[int, Field(ge=1)] = 1
    """Processes of one run that train in parallel (DDP)."""
    gpus_per_worker: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """GPUs per worker, fractions allowed; auto: 1, a fraction if there are more workers than GPUs, or 0 if the
    cluster has none and its autoscaler can add none."""
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1.0
    """CPU cores per worker."""
    tf32: bool = True
    """TF32 on GPUs: factors of matrix products and convolutions are rounded to 10 bits; sums stay fp32."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads per worker; 0: cpus_per_worker, rounded up."""
