"""LoRA adapters: trainable parameters, saving, loading, merging."""

from pathlib import Path

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor

from woundray.config import LoraConfig
from woundray.errors import UserError
from woundray.models.lora import add_adapter, load_adapter, merged, save_adapter
from woundray.models.noise_schedule import NoiseSchedule
from woundray.models.text_encoder import embed_prompts
from woundray.models.unet import load_unet
from woundray.models.vae import load_vae
from woundray.sampling.pipeline import sample_images
from woundray.sampling.solver import Prompt, Sampler
from woundray.weights.diffusers_layout import WEIGHTS_NAME

CPU = torch.device("cpu")
CONFIG = LoraConfig(rank=3, alpha=7.0)


def fresh(base: Path) -> UNet2DConditionModel:
    return load_unet(base, dtype=torch.float32, device=CPU)


def trained(base: Path, config: LoraConfig = CONFIG) -> UNet2DConditionModel:
    """A UNet whose adapter changes much."""
    unet = fresh(base)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in add_adapter(unet, config, seed=0).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return unet.eval()


def picture(unet: UNet2DConditionModel, base: Path) -> Tensor:
    prompt = Prompt.from_embeddings(embed_prompts(base, ["a photo of a diabetic foot ulcer", ""], device=CPU))
    sampler = Sampler(NoiseSchedule.load(base), resolution=64, steps=3, guidance_scale=2.0, batch_size=2)
    return sample_images(unet, load_vae(base, device=CPU), prompt, [5], sampler)


def test_the_adapter_and_nothing_else_is_trainable(micro_base: Path) -> None:
    unet = fresh(micro_base)
    parameters = add_adapter(unet, CONFIG, seed=0)
    trainable = {name for name, parameter in unet.named_parameters() if parameter.requires_grad}
    assert trainable == parameters.keys()
    layers = [
        module
        for name, module in fresh(micro_base).named_modules()
        if name.endswith(("to_q", "to_k", "to_v", "to_out.0"))
    ]
    expected = sum(3 * (layer.in_features + layer.out_features) for layer in layers)
    assert sum(parameter.numel() for parameter in parameters.values()) == expected


def test_a_new_adapter_changes_nothing_and_depends_on_its_seed(micro_base: Path) -> None:
    unet, other, again = fresh(micro_base), fresh(micro_base), fresh(micro_base)
    first = add_adapter(unet, CONFIG, seed=1)
    torch.rand(4)  # the global generator does not matter
    same, different = add_adapter(again, CONFIG, seed=1), add_adapter(other, CONFIG, seed=2)
    assert torch.equal(picture(unet, micro_base), picture(fresh(micro_base), micro_base))
    names = [name for name in first if "lora_A" in name]
    assert all(torch.equal(first[name], same[name]) for name in names)
    assert not any(torch.equal(first[name], different[name]) for name in names)


def test_saved_and_loaded_it_draws_the_same_picture_and_another_than_the_base(micro_base: Path, tmp_path: Path) -> None:
    """The user's earlier evaluation loaded nothing (strict=False, other key names) and scored the base model."""
    unet = trained(micro_base)
    save_adapter(unet, tmp_path / WEIGHTS_NAME)
    loaded = fresh(micro_base)
    load_adapter(loaded, tmp_path / WEIGHTS_NAME)
    assert torch.equal(picture(loaded, micro_base), picture(unet, micro_base))
    assert not torch.equal(picture(loaded, micro_base), picture(fresh(micro_base), micro_base))


def test_diffusers_loads_it_with_its_alpha(micro_base: Path, tmp_path: Path) -> None:
    unet = trained(micro_base)
    save_adapter(unet, tmp_path / WEIGHTS_NAME)
    pipeline = StableDiffusionPipeline.from_pretrained(micro_base, local_files_only=True)
    pipeline.load_lora_weights(tmp_path)
    generator = torch.Generator().manual_seed(0)
    latents, text = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 32, 16, generator=generator)
    with torch.no_grad():
        ours = unet(latents, 500, text, return_dict=False)[0]
        theirs = pipeline.unet(latents, 500, text, return_dict=False)[0]
        base = fresh(micro_base)(latents, 500, text, return_dict=False)[0]
    torch.testing.assert_close(theirs, ours)
    assert not torch.allclose(base, ours, rtol=1e-2)


@pytest.mark.parametrize("dora", [False, True])
def test_merged_it_predicts_the_same_and_restores_the_weights(micro_base: Path, dora: bool) -> None:
    unet = trained(micro_base, CONFIG.model_copy(update={"use_dora": dora, "target_modules": ("attention", "conv")}))
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(2, 4, 8, 8, generator=generator)
    text = torch.randn(2, 77, unet.config["cross_attention_dim"], generator=generator)
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in unet.state_dict().items()}
    with torch.inference_mode():
        apart = unet(noise, 500, text).sample
        with merged(unet):
            changed = [name for name, tensor in unet.state_dict().items() if not torch.equal(tensor, before[name][1])]
            together = unet(noise, 500, text).sample
        again = unet(noise, 500, text).sample
    assert changed and all("base_layer.weight" in name for name in changed)
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)
    assert torch.equal(again, apart)
    for name, tensor in unet.state_dict().items():
        assert tensor.data_ptr() == before[name][0] and torch.equal(tensor, before[name][1])


def test_images_are_sampled_with_merged_weights(micro_base: Path) -> None:
    unet = trained(micro_base)
    layers = [layer for layer in unet.modules() if isinstance(layer, LoraLayer)]
    seen: list[bool] = []
    unet.register_forward_hook(lambda *_: seen.extend(layer.merged for layer in layers))
    picture(unet, micro_base)
    assert len(seen) == 3 * len(layers) and all(seen)
    assert not any(layer.merged for layer in layers)


def test_adapters_of_half_precision_weights_are_not_merged(micro_base: Path) -> None:
    unet = trained(micro_base).to(torch.bfloat16)
    with merged(unet):
        assert not any(layer.merged for layer in unet.modules() if isinstance(layer, LoraLayer))


def test_a_target_that_matches_no_layer_is_refused(micro_base: Path) -> None:
    with pytest.raises(UserError, match=r"lora\.target_modules: no layer of the UNet is called to_nothing"):
        add_adapter(fresh(micro_base), LoraConfig(target_modules=("to_q", "to_nothing")), seed=0)


def test_a_file_that_does_not_fit_is_refused(micro_base: Path, tmp_path: Path) -> None:
    path = tmp_path / WEIGHTS_NAME
    save_adapter(trained(micro_base), path)
    damaged = path.read_bytes()[:-50]
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="not a LoRA file"):
        load_adapter(fresh(micro_base), path)
    save_file({"unet.a": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="not a LoRA file with its rank and alpha"):
        load_adapter(fresh(micro_base), path)


def test_an_adapter_of_another_base_is_refused(micro_base: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    path = tmp_path / WEIGHTS_NAME
    save_adapter(trained(micro_base), path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    first = sorted(tensors)[0]
    save_file(tensors | {first: torch.zeros(3, 99)}, path, metadata=metadata)
    with pytest.raises(UserError, match="made for another base model: 1 tensors do not fit"):
        load_adapter(fresh(micro_base), path)
    del tensors[first]
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(UserError, match="made for another base model"):
        load_adapter(fresh(micro_base), path)
