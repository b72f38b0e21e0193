"""The tiny base: what it weighs and costs, and that it is one with diffusers' own loading and saving."""

import json
import string
from pathlib import Path

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from woundray.errors import UserError
from woundray.models.tiny_architecture import (
    MICRO,
    PICTURE_PX,
    PROMPT_TOKENS,
    TINY,
    WORDS,
    TinyBase,
    build_tiny,
    build_tokenizer,
    save_tiny,
)

PROMPTS = (
    "a close-up photo of a diabetic foot ulcer in the inflammatory phase, slough, necrosis, redness",
    "a close-up photo of a diabetic foot ulcer in the proliferative phase, red granulation tissue",
    "a close-up photo of a diabetic foot ulcer in the remodeling phase, pale new epithelium, scar",
)
LATENT_PX = PICTURE_PX // 8


def modules(base: TinyBase) -> nn.ModuleDict:
    return nn.ModuleDict({"vae": base.vae, "unet": base.unet, "text_encoder": base.text_encoder})


@torch.no_grad()
def predict(base: TinyBase, prompt: str = PROMPTS[0]) -> torch.Tensor:
    """Noise that the UNet sees in a fixed latent under `prompt`."""
    latents = torch.randn(1, MICRO.latent_channels, LATENT_PX, LATENT_PX, generator=torch.Generator().manual_seed(0))
    ids = base.tokenizer(prompt, padding="max_length", return_tensors="pt").input_ids
    predicted: torch.Tensor = base.unet(latents, 500, base.text_encoder(ids)[0]).sample
    return predicted


def test_build_is_a_function_of_the_seed_and_leaves_the_global_generator() -> None:
    before = torch.get_rng_state()
    first, again, other = (modules(build_tiny(seed, MICRO)).state_dict() for seed in (1, 1, 2))

    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["unet.conv_in.weight"], other["unet.conv_in.weight"])


def test_pipeline_loads_what_was_saved_and_draws(tmp_path: Path) -> None:
    base = build_tiny(0, MICRO)
    save_tiny(base, tmp_path / "model", dtype=torch.float32)

    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "model", local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    loaded = TinyBase(pipeline.vae, pipeline.unet, pipeline.text_encoder, pipeline.tokenizer, pipeline.scheduler)
    drawn = pipeline(PROMPTS[0], num_inference_steps=2, output_type="np").images

    saved = modules(base).state_dict()
    assert all(torch.equal(saved[name], value) for name, value in modules(loaded).state_dict().items())
    torch.testing.assert_close(predict(base), predict(loaded))
    assert drawn.shape == (1, PICTURE_PX, PICTURE_PX, 3)


def test_halves_load_as_float32_everywhere_and_leave_the_base_alone(tmp_path: Path) -> None:
    base = build_tiny(0, MICRO)
    save_tiny(base, tmp_path / "model")

    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "model", local_files_only=True)

    assert base.unet.dtype == torch.float32
    assert {pipeline.vae.dtype, pipeline.unet.dtype, pipeline.text_encoder.dtype} == {torch.float32}
    assert torch.equal(pipeline.unet.conv_in.weight, base.unet.conv_in.weight.half().float())
    assert json.loads((tmp_path / "model" / "model_index.json").read_text())["safety_checker"] == [None, None]


def test_saving_over_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"exists already; remove it"):
        save_tiny(build_tiny(0, MICRO), tmp_path)


def test_default_prompts_are_few_tokens_and_come_back() -> None:
    tokenizer = build_tokenizer()
    for prompt in PROMPTS:
        ids = tokenizer(prompt).input_ids
        pieces = prompt.replace(",", " ,").replace("-", " - ").split()
        assert tokenizer.decode(ids, skip_special_tokens=True) == " ".join(pieces)
        assert len(ids) == len(pieces) + 2 <= PROMPT_TOKENS  # one a word or mark, start and end


def test_words_are_single_tokens_and_all_of_ascii_is_spelled() -> None:
    tokenizer = build_tokenizer()
    assert all(tokenizer.tokenize(word) == [f"{word}</w>"] for word in WORDS)
    ids = tokenizer(string.printable).input_ids[1:-1]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer("").input_ids == [tokenizer.bos_token_id, tokenizer.eos_token_id]


def test_prompt_reaches_the_prediction() -> None:
    base = build_tiny(0, MICRO)
    assert not torch.allclose(predict(base, PROMPTS[0]), predict(base, PROMPTS[1]))


def test_schedule_is_that_of_stable_diffusion() -> None:
    scheduler = build_tiny(0, MICRO).scheduler
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    assert torch.allclose(scheduler.betas, betas)
    assert scheduler.config["prediction_type"] == "epsilon"


def test_attention_has_the_layers_that_lora_targets() -> None:
    names = [name for name, _ in build_tiny(0, MICRO).unet.named_modules()]
    for target in ("to_q", "to_k", "to_v", "to_out.0"):
        assert any(f"attn1.{target}" in name for name in names)
        assert any(f"attn2.{target}" in name for name in names)


def test_tiny_keeps_its_budget_of_weights_and_operations() -> None:
    """28 MB in float16; 0.33 GMAC a UNet forward and 1.6 GMAC a decoding, at 128 px."""
    base = build_tiny(0, TINY)
    latents = torch.zeros(1, TINY.latent_channels, LATENT_PX, LATENT_PX)
    prompt = torch.zeros(1, PROMPT_TOKENS, TINY.text_width)
    with torch.no_grad(), FlopCounterMode(display=False) as unet_counter:
        base.unet(latents, 0, prompt)
    with torch.no_grad(), FlopCounterMode(display=False) as decoding_counter:
        base.vae.decode(latents)

    assert 2 * sum(p.numel() for p in modules(base).parameters()) < 28e6
    assert unet_counter.get_total_flops() / 2 < 0.33e9
    assert decoding_counter.get_total_flops() / 2 < 1.6e9
