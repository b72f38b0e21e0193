"""UNet that replays captured CUDA graphs while training, without a Python call a kernel."""

from collections.abc import Callable, Mapping
from typing import cast

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from woundray.config import Config
from woundray.training.distributed import DistributedContext


class CudaGraphedUNet(nn.Module):
    """UNet that replays captured CUDA graphs while training, one each for the forward and the backward pass.

    At 128 px a batch of Stable Diffusion is some thousand kernels of a few microseconds, and launching them one by one
    takes longer than running them. A graph is captured at the first call of each shape of inputs. Without gradients,
    as for validation and sampling, the UNet runs as it is.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet
        self._captured: dict[tuple[torch.Size, ...], Callable[..., Tensor]] = {}
        self._gradients: list[Tensor] = []

    def own_gradients(self) -> None:
        """Set the gradient of each trained parameter to zeros, in memory that no graph writes to.

        A captured backward pass writes gradients to the same memory at each replay, and autograd takes that memory for
        a parameter's gradient where there is none yet: the next micro-batch would overwrite what it is to be added to
        (github.com/pytorch/pytorch/issues/181723).
        """
        trained = [parameter for parameter in self.unet.parameters() if parameter.requires_grad]
        self._gradients = self._gradients or [torch.empty_like(parameter) for parameter in trained]
        torch._foreach_zero_(self._gradients)
        for parameter, gradient in zip(trained, self._gradients, strict=True):
            parameter.grad = gradient

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        text: Tensor,
        *,
        added_cond_kwargs: Mapping[str, Tensor] | None,
        return_dict: bool,
    ) -> tuple[Tensor]:
        """Call the UNet, by replay while training with gradients; see `woundray.models.unet.Denoiser`."""
        assert not return_dict
        if not (self.training and torch.is_grad_enabled()):
            return cast(
                tuple[Tensor],
                self.unet(latents, timesteps, text, added_cond_kwargs=added_cond_kwargs, return_dict=False),
            )
        added = dict(added_cond_kwargs or {})
        inputs = (latents, timesteps, text, *added.values())
        shapes = tuple(tensor.shape for tensor in inputs)
        if shapes not in self._captured:
            self._captured[shapes] = _capture(_TensorsOnly(self.unet, tuple(added)), inputs)
        return (self._captured[shapes](*inputs),)


class _TensorsOnly(nn.Module):
    """The UNet with tensors alone as arguments, as capturing requires it."""

    def __init__(self, unet: UNet2DConditionModel, added: tuple[str, ...]) -> None:
        super().__init__()
        self.unet, self.added = unet, added

    def forward(self, latents: Tensor, timesteps: Tensor, text: Tensor, *added: Tensor) -> Tensor:
        named = dict(zip(self.added, added, strict=True)) or None
        return cast(Tensor, self.unet(latents, timesteps, text, added_cond_kwargs=named, return_dict=False)[0])


def _capture(module: _TensorsOnly, inputs: tuple[Tensor, ...]) -> Callable[..., Tensor]:
    samples = tuple(tensor.detach().clone() for tensor in inputs)
    random_state = torch.cuda.get_rng_state()  # warming up draws dropout
    # capturing runs on a stream of its own, which every backward pass after it would otherwise warn of
    torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    captured = torch.cuda.make_graphed_callables(module, samples)
    torch.cuda.set_rng_state(random_state)
    return cast(Callable[..., Tensor], captured)


def can_capture(config: Config, context: DistributedContext) -> bool:
    """Whether steps of this run can be captured: one process, a GPU, and nothing that a graph can not hold.

    With several processes they can not: the threads that monitor their communication call CUDA in the middle of a
    capture, which breaks it.
    """
    mixed = config.training.method == "full" and config.model.precision != "fp32"
    return (
        config.model.cuda_graphs
        and context.device.type == "cuda"
        and context.world_size == 1
        and not config.model.gradient_checkpointing
        and not mixed
    )
