"""Each family of base models, at tiny widths: agreement with diffusers' own pipelines, and a run from end to end."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from families import NEGATIVE, SIDE_PX, STEPS, build_family, family_config, pipeline_of
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from woundray.checkpoints.generate import SamplingOptions, generate_images
from woundray.config import Config
from woundray.errors import UserError
from woundray.models.lora import add_adapter, load_adapter, save_adapter
from woundray.models.noise_schedule import NoiseSchedule
from woundray.models.text_encoder import embed_prompts, warn_of_truncation
from woundray.models.unet import load_unet
from woundray.models.vae import encode_moments, load_vae
from woundray.sampling.grids import make_grid
from woundray.sampling.solver import Prompt, Sampler, denoise
from woundray.training import train_step as steps
from woundray.training.distributed import DistributedContext
from woundray.training.loop import train
from woundray.training.precompute import Precomputed, precompute
from woundray.training.random_inputs import draw_random_inputs, random_stream
from woundray.training.validation_loss import validation_loss
from woundray.weights import diffusers_layout
from woundray.weights.diffusers_layout import WEIGHTS_NAME
from woundray.weights.repositories import REPOSITORIES

CPU = torch.device("cpu")
PROMPT = "a photo of a diabetic foot ulcer, red granulation!"
LATENT_PX = 8


def pipeline_latents(pipeline: Any, noise: Tensor, guidance_scale: float, negative: str | None) -> Tensor:
    latents: Tensor = pipeline(
        PROMPT,
        negative_prompt=negative,
        latents=noise,
        guidance_scale=guidance_scale,
        num_inference_steps=STEPS,
        num_images_per_prompt=len(noise),
        height=SIDE_PX,
        width=SIDE_PX,
        output_type="latent",
        return_dict=False,
    )[0]
    return latents


def test_truncated_words_of_the_tiny_model_are_named_once(micro_base: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_truncation_warning(micro_base, caplog)


def test_truncated_words_are_named_once(family_base: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_truncation_warning(family_base, caplog)


def check_truncation_warning(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = [f"{base.name.replace('-', '')}{number}" for number in range(80)]
    long = f"{' '.join(words)}, Necrosis"
    with caplog.at_level("WARNING", "woundray"):
        embed_prompts(base, ["a wound", long, ""], device=CPU)
        embed_prompts(base, [long], device=CPU)
        warn_of_truncation(base, [long])
    [message] = caplog.messages
    beginning, lost = message.split("`")[1::2]
    assert long.startswith(beginning) and long.endswith(f" {lost}") and lost.endswith("Necrosis")

    caplog.clear()
    warn_of_truncation(base, [long.removesuffix(lost).strip()])
    assert caplog.messages == []  # all that is left is read


def noise_of(count: int = 2) -> Tensor:
    return torch.randn(count, 4, LATENT_PX, LATENT_PX, generator=torch.Generator().manual_seed(0))


def our_latents(unet: UNet2DConditionModel, base: Path, guidance_scale: float, negative: str = NEGATIVE) -> Tensor:
    prompt = Prompt.from_embeddings(embed_prompts(base, [PROMPT, negative], device=CPU))
    sampler = Sampler(NoiseSchedule.load(base), SIDE_PX, STEPS, guidance_scale, batch_size=2)
    with torch.inference_mode():
        return denoise(unet, noise_of(), prompt, sampler)


def fresh(base: Path) -> UNet2DConditionModel:
    return load_unet(base, dtype=torch.float32, device=CPU)


def inputs_of(unet: UNet2DConditionModel, seen: list[dict[str, Any]]) -> None:
    """Record the inputs of the UNet."""

    def keep(_: object, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        names = ("sample", "timestep", "encoder_hidden_states")
        seen.append(dict(zip(names, positional, strict=False)) | named)

    unet.register_forward_pre_hook(keep, with_kwargs=True)


def test_a_folder_as_on_the_hub_is_complete_and_of_its_prediction_type(family_base: Path) -> None:
    assert diffusers_layout.missing_files(family_base) == []
    assert NoiseSchedule.load(family_base).prediction_type == REPOSITORIES[family_base.name].prediction_type


def test_text_embeddings_are_those_of_diffusers(family_base: Path) -> None:
    long = "a photo of a foot " * 30  # is cut
    ours = embed_prompts(family_base, [PROMPT, NEGATIVE, long], device=CPU)
    pipeline = pipeline_of(family_base.name, family_base)
    for row, prompt in ((0, PROMPT), (2, long)):
        with torch.no_grad():
            theirs = pipeline.encode_prompt(
                prompt, device=CPU, num_images_per_prompt=1, negative_prompt=NEGATIVE, do_classifier_free_guidance=True
            )
        torch.testing.assert_close(ours.hidden[row], theirs[0][0])
        torch.testing.assert_close(ours.hidden[1], theirs[1][0])
        if family_base.name == "sdxl":
            assert ours.pooled is not None
            torch.testing.assert_close(ours.pooled[row], theirs[2][0])
            torch.testing.assert_close(ours.pooled[1], theirs[3][0])
    assert (ours.pooled is None) == (family_base.name != "sdxl")
    assert not torch.allclose(ours.hidden[0], ours.hidden[1], rtol=0.1)


def test_an_empty_negative_prompt_is_what_diffusers_takes_for_none(family_base: Path) -> None:
    ours = embed_prompts(family_base, [PROMPT, ""], device=CPU)
    with torch.no_grad():
        theirs = pipeline_of(family_base.name, family_base).encode_prompt(
            PROMPT, device=CPU, num_images_per_prompt=1, do_classifier_free_guidance=True
        )
    torch.testing.assert_close(ours.hidden[1], theirs[1][0])
    if ours.pooled is not None:
        torch.testing.assert_close(ours.pooled[1], theirs[3][0])
        assert ours.hidden[1].abs().max() == 0


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_sampling_calls_the_unet_as_diffusers_pipeline_does(family_base: Path, guidance_scale: float) -> None:
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    unet, pipeline = fresh(family_base), pipeline_of(family_base.name, family_base)
    inputs_of(unet, ours)
    inputs_of(pipeline.unet, theirs)
    latents = our_latents(unet, family_base, guidance_scale)
    expected = pipeline_latents(pipeline, noise_of(), guidance_scale, NEGATIVE)

    assert len(ours) == len(theirs) == STEPS
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our["sample"], their["sample"], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(our["encoder_hidden_states"], their["encoder_hidden_states"])
        assert float(our["timestep"]) == float(their["timestep"])
        added, their_added = our["added_cond_kwargs"], their.get("added_cond_kwargs")
        assert (added is None) == (their_added is None) == (family_base.name != "sdxl")
        for name in ("text_embeds", "time_ids") if added else ():
            torch.testing.assert_close(added[name], their_added[name])
    torch.testing.assert_close(latents, expected, atol=1e-3, rtol=1e-3)


def test_latents_are_scaled_as_the_family_has_it(family_base: Path) -> None:
    vae = load_vae(family_base, device=CPU)
    assert vae.dtype == torch.float32
    picture = torch.randint(
        0, 256, (1, 3, SIDE_PX, SIDE_PX), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    with torch.inference_mode():
        mean = vae.encode(picture / 127.5 - 1).latent_dist.mean
    factor = 0.13025 if family_base.name == "sdxl" else 0.18215
    torch.testing.assert_close(encode_moments(vae, picture)[:, :4], mean * factor)


def check_conditions_of_a_row(config: Config, precomputed: Precomputed) -> None:
    """In training, tokens and pooled text of a row are both the caption's, or both the empty one's; and its size."""
    latent_cache, seen = precomputed.latent_cache, list[dict[str, Any]]()
    texts = embed_prompts(precomputed.base, [config.prompts.positive, config.prompts.negative], device=CPU)
    unet = fresh(precomputed.base)
    inputs_of(unet, seen)
    draws = draw_random_inputs(torch.arange(2), latent_cache, precomputed.schedule, config, random_stream(0, 1, 1))
    draws = replace(draws, text_kept=torch.tensor([False, True]))
    with torch.no_grad():
        steps.compute_losses(steps.LossContext(unet, None, latent_cache, precomputed.schedule, config), draws)
    validation_loss(unet, latent_cache, precomputed.schedule, config, DistributedContext.single())
    for inputs, rows in ((seen[0], [1, 0]), (seen[1], [0] * len(seen[1]["sample"]))):
        torch.testing.assert_close(inputs["encoder_hidden_states"], texts.hidden[rows])
        if texts.pooled is None:
            assert inputs["added_cond_kwargs"] is None
            continue
        torch.testing.assert_close(inputs["added_cond_kwargs"]["text_embeds"], texts.pooled[rows])
        sizes = torch.tensor([SIDE_PX, SIDE_PX, 0, 0, SIDE_PX, SIDE_PX]).expand(len(rows), -1)
        assert torch.equal(inputs["added_cond_kwargs"]["time_ids"], sizes.float())


def test_from_photographs_to_an_adapter_that_draws_the_trainers_pictures(family_base: Path, tmp_path: Path) -> None:
    precomputed = precompute(family_config(family_base), tmp_path / "precomputed", device=CPU, progress=lambda *_: None)
    check_conditions_of_a_row(family_config(family_base), precomputed)
    output = tmp_path / "run"
    reports: list[dict[str, float]] = []
    train(
        family_config(family_base),
        precomputed=precomputed.folder,
        output=output,
        context=DistributedContext.single(),
        report=lambda metrics, _: reports.append(metrics),
    )
    assert [report["epoch"] for report in reports] == [1, 2]
    checkpoint = (output / "latest").resolve()

    # every layer learned; where one token is left of a picture, attention to itself has no queries and keys to learn
    adapter = load_file(checkpoint / WEIGHTS_NAME)
    ends = ("to_v.lora_B.weight", "to_out.0.lora_B.weight")
    assert all(tensor.abs().max() > 0 for name, tensor in adapter.items() if name.endswith(ends))

    drawn = generate_images(checkpoint, SamplingOptions(4), lambda *_: None)
    grid = pil_to_tensor(Image.open(checkpoint / "grid.png"))
    base_grid = pil_to_tensor(Image.open(precomputed.folder / "base_model.png"))
    difference = (make_grid(drawn).int() - grid.int()).abs()
    assert difference.max() <= 1
    assert (base_grid.int() - grid.int()).abs().float().mean() > 1


def test_diffusers_pipeline_draws_with_the_saved_adapter_what_we_draw(family_base: Path, tmp_path: Path) -> None:
    unet = fresh(family_base)
    generator = torch.Generator().manual_seed(0)
    config = family_config(family_base).lora
    with torch.no_grad():
        for parameter in add_adapter(unet, config, seed=0).values():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    save_adapter(unet, tmp_path / WEIGHTS_NAME)
    loaded = fresh(family_base)
    load_adapter(loaded, tmp_path / WEIGHTS_NAME)
    ours = our_latents(loaded, family_base, 4.0)
    pipeline = pipeline_of(family_base.name, family_base)
    pipeline.load_lora_weights(tmp_path)
    torch.testing.assert_close(pipeline_latents(pipeline, noise_of(), 4.0, NEGATIVE), ours, atol=1e-2, rtol=1e-3)
    assert (our_latents(fresh(family_base), family_base, 4.0) - ours).abs().max() > 0.5


def test_half_precision_files_alone_are_enough(family_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / family_base.name
    shutil.copytree(family_base, folder)
    for path in sorted(folder.glob("*/*.safetensors")):
        tensors = {
            name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in load_file(path).items()
        }
        path.unlink()
        save_file(tensors, path.with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
    assert diffusers_layout.missing_files(folder) == []
    unet = load_unet(folder, dtype=torch.float32, device=CPU)
    assert (unet.dtype, load_vae(folder, device=CPU).dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(
        our_latents(unet, folder, 2.0), our_latents(fresh(family_base), family_base, 2.0), atol=0.05, rtol=0.05
    )


@pytest.fixture
def sdxl(tmp_path: Path) -> Path:
    build_family("sdxl", tmp_path / "sdxl")
    return tmp_path / "sdxl"


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_models_with_more_inputs_are_refused(sdxl: Path, tmp_path: Path) -> None:
    def refused(folder: Path, message: str) -> None:
        with pytest.raises(UserError, match=message):
            fresh(folder)

    # a UNet that wants pictures as conditions
    other = UNet2DConditionModel(
        **{**_MICRO, "addition_embed_type": "image", "encoder_hid_dim": 8, "encoder_hid_dim_type": "image_proj"},
        cross_attention_dim=8,
    )
    shutil.copytree(sdxl, tmp_path / "image")
    other.save_pretrained(tmp_path / "image/unet")
    refused(tmp_path / "image", "wants image conditions")

    shutil.copytree(sdxl, tmp_path / "inpainting")
    UNet2DConditionModel(**_MICRO, in_channels=9, cross_attention_dim=8).save_pretrained(tmp_path / "inpainting/unet")
    refused(tmp_path / "inpainting", "an inpainting model")

    # SDXL's refiner takes five numbers
    rewrite(sdxl / "text_encoder_2/config.json", projection_dim=24 + 8)
    refused(sdxl, "perhaps its refiner")


_MICRO: dict[str, Any] = {
    "block_out_channels": (8,),
    "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("CrossAttnUpBlock2D",),
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "attention_head_dim": 1,
}


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2"])
def test_weights_that_lack_a_tensor_are_refused_by_name(sdxl: Path, part: str) -> None:
    """Both libraries fill missing tensors with random numbers."""
    path = sdxl / part / f"{diffusers_layout.WEIGHTS_STEMS[part]}.safetensors"
    tensors = load_file(path)
    lost = sorted(name for name in tensors if name.endswith("weight"))[0]
    del tensors[lost]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"sdxl/{part}: the weights lack 1 tensors, such as .*weight"):
        open_all(sdxl)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=rf"sdxl/{part}: damaged"):
        open_all(sdxl)
    path.unlink()
    with pytest.raises(UserError, match=rf"no {part}/config.json with {part}/"):
        open_all(sdxl)


def open_all(folder: Path) -> None:
    fresh(folder)
    load_vae(folder, device=CPU)
    embed_prompts(folder, [PROMPT], device=CPU)
