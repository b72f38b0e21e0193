"""Exports: loaded by diffusers they equal the trained adapter; a faulty one is refused and leaves no file."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from woundray.config import LoraConfig
from woundray.errors import UserError
from woundray.models import export
from woundray.models.kohya import adapter_layers, base_version, kohya_name, kohya_tensors, merge_kohya
from woundray.models.lora import add_adapter, save_adapter
from woundray.models.tiny_architecture import MICRO, build_tiny, save_tiny
from woundray.weights.diffusers_layout import WEIGHTS_NAME

Exported = tuple[Path, Path, export.ExportReference]

ATTENTION = LoraConfig(rank=3, alpha=7.0)
EVERYWHERE = LoraConfig(
    rank=2,
    alpha=5.0,
    target_modules=(
        "to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2",
        "conv_shortcut", "time_emb_proj", "conv_in", "conv_out", "linear_1", "linear_2", "downsamplers.0.conv",
        "upsamplers.0.conv",
    ),
)  # fmt: skip


def load_bare(base: Path) -> UNet2DConditionModel:
    unet: UNet2DConditionModel = UNet2DConditionModel.from_pretrained(base / "unet", local_files_only=True)
    return unet.eval()


def train(base: Path, folder: Path, config: LoraConfig = ATTENTION) -> tuple[Path, UNet2DConditionModel]:
    """File of an adapter that changes something, and the UNet it was saved from."""
    unet = load_bare(base)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in add_adapter(unet, config, seed=0).items():
            if "magnitude" in name:
                parameter.mul_(1 + torch.rand(parameter.shape, generator=generator))
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 5)
    save_adapter(unet, folder / WEIGHTS_NAME)
    return folder / WEIGHTS_NAME, unet.eval()


@pytest.fixture(scope="module")
def conv_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of Stable Diffusion 1.5's kind: the projections around attention are 1 x 1 convolutions; it predicts v."""
    tiny = build_tiny(1, MICRO)
    unet = UNet2DConditionModel.from_config({**tiny.unet.config, "use_linear_projection": False})
    tiny.scheduler.register_to_config(prediction_type="v_prediction")
    folder = tmp_path_factory.mktemp("base") / "conv"
    save_tiny(type(tiny)(tiny.vae, unet, tiny.text_encoder, tiny.tokenizer, tiny.scheduler), folder, torch.float32)
    return folder


@pytest.fixture(scope="module")
def sdxl_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SDXL's blocks, narrow: the first level has no attention, the others some layers of it."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(1, 2, 2),
        cross_attention_dim=32,  # both text encoders' widths
        norm_num_groups=4,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 8,
    )
    tiny = build_tiny(0, MICRO)
    text = CLIPTextConfig(**tiny.text_encoder.config.to_dict() | {"projection_dim": 8})
    pipeline = StableDiffusionXLPipeline(
        vae=tiny.vae,
        text_encoder=tiny.text_encoder,
        text_encoder_2=CLIPTextModelWithProjection(text),
        tokenizer=tiny.tokenizer,
        tokenizer_2=tiny.tokenizer,
        unet=unet,
        scheduler=EulerDiscreteScheduler(prediction_type="epsilon"),
        add_watermarker=False,
    )
    folder = tmp_path_factory.mktemp("base") / "sdxl"
    pipeline.save_pretrained(folder)
    return folder


def predict(unet: UNet2DConditionModel) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    text = torch.randn(2, 5, unet.config["cross_attention_dim"], generator=generator)
    conditions = {"text_embeds": torch.ones(2, 8), "time_ids": torch.full((2, 6), 64.0)}
    with torch.no_grad():
        prediction: Tensor = unet(latents, 400, text, added_cond_kwargs=conditions, return_dict=False)[0]
    return prediction


@pytest.mark.parametrize(
    ("base_name", "config"),
    [("micro_base", ATTENTION), ("conv_base", EVERYWHERE), ("sdxl_base", EVERYWHERE)],
    ids=["attention of 2.1's kind", "all layers of 1.5's kind", "all layers of SDXL's kind"],
)
def test_loaded_by_diffusers_every_format_is_the_trained_adapter(
    base_name: str, config: LoraConfig, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    base: Path = request.getfixturevalue(base_name)
    adapter, trained = train(base, tmp_path, config)
    export.export_diffusers(adapter, base, tmp_path / "folder")
    export.export_kohya(adapter, base, tmp_path / "wound.safetensors")
    export.export_merged(adapter, base, tmp_path / "merged")
    kind = StableDiffusionXLPipeline if base_name == "sdxl_base" else StableDiffusionPipeline
    for out in ("folder", "wound.safetensors"):
        pipeline = kind.from_pretrained(base, local_files_only=True)
        pipeline.load_lora_weights(tmp_path / out)
        torch.testing.assert_close(predict(pipeline.unet), predict(trained), rtol=1e-4, atol=1e-4)
    merged = kind.from_pretrained(tmp_path / "merged", local_files_only=True)
    torch.testing.assert_close(predict(merged.unet), predict(trained), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(predict(load_bare(base)), predict(trained), rtol=0.1, atol=0.1)
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "wound.safetensors", "merged", WEIGHTS_NAME}


@pytest.mark.parametrize("options", [{"use_rslora": True}, {"use_dora": True}, {"use_dora": True, "use_rslora": True}])
@pytest.mark.parametrize("base_name", ["conv_base", "sdxl_base"])
def test_a_kohya_file_has_the_effect_of_rslora_and_dora(
    base_name: str, options: dict[str, bool], request: pytest.FixtureRequest
) -> None:
    """Readers divide alpha by the rank and do not support rsLoRA; peft itself is the reference."""
    base: Path = request.getfixturevalue(base_name)
    trained, bare = load_bare(base), load_bare(base)
    targets = ["to_q", "to_out.0", "ff.net.2", "conv1", "conv_shortcut"]
    trained.add_adapter(peft.LoraConfig(r=4, lora_alpha=6, target_modules=targets, **options))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in trained.named_parameters():
        if "lora_" in name:
            noise = torch.randn(parameter.shape, generator=generator) / 5
            parameter.data = parameter.data * (1 + noise) if "magnitude" in name else noise
    tensors = kohya_tensors(adapter_layers(trained), trained.config)
    alpha = 12 if "use_rslora" in options else 6
    assert {float(tensor) for name, tensor in tensors.items() if name.endswith(".alpha")} == {alpha}
    assert any(name.endswith(".dora_scale") for name in tensors) == ("use_dora" in options)
    before = predict(bare)
    merge_kohya(bare, tensors)
    torch.testing.assert_close(predict(bare), predict(trained.eval()), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(predict(bare), before, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("options", [{"use_dora": True}, {"use_rslora": True}])
def test_every_format_takes_rslora_and_dora(
    options: dict[str, bool], conv_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """diffusers ignores `dora_scale`, so that another check than its loader must guard the file."""
    targets = ("to_q", "to_out.0", "conv1", "proj_in")
    config = LoraConfig.model_validate({"rank": 4, "alpha": 6.0, "target_modules": targets, **options})
    adapter, trained = train(conv_base, tmp_path, config)
    file = tmp_path / "wound.safetensors"
    export.export_diffusers(adapter, conv_base, tmp_path / "folder")
    export.export_merged(adapter, conv_base, tmp_path / "merged")
    export.export_kohya(adapter, conv_base, file)
    merged = StableDiffusionPipeline.from_pretrained(tmp_path / "merged", local_files_only=True)
    torch.testing.assert_close(predict(merged.unet), predict(trained), rtol=1e-3, atol=1e-3)
    assert ("--format merged has no such doubt" in caplog.text) == ("use_dora" in options)
    _, reference = export.load_reference(adapter, conv_base)
    last = "mid_block_attentions_0_proj_in.dora_scale" if "use_dora" in options else ".alpha"
    save_file(drop(last)(load_file(file)), file)
    with pytest.raises(UserError, match=r"wound\.safetensors: not exported"):
        export.check_kohya(file, reference)


def test_a_base_as_it_is_staged_is_merged(micro_base: Path, tmp_path: Path) -> None:
    """In half precision only, and without the safety checker that its index names."""
    base = tmp_path / "base"
    pipeline = StableDiffusionPipeline.from_pretrained(micro_base, local_files_only=True)
    pipeline.to(torch.float16).save_pretrained(base, variant="fp16")
    index = json.loads((base / "model_index.json").read_text())
    checker = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    (base / "model_index.json").write_text(json.dumps(index | checker))
    adapter, trained = train(micro_base, tmp_path)
    export.export_kohya(adapter, base, tmp_path / "wound.safetensors")
    export.export_merged(adapter, base, tmp_path / "merged")
    merged = StableDiffusionPipeline.from_pretrained(tmp_path / "merged", local_files_only=True)
    torch.testing.assert_close(predict(merged.unet), predict(trained), rtol=1e-2, atol=1e-2)


def drop(ending: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if not name.endswith(ending)}


def rename(old: str, new: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {name.replace(old, new): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    "fault",
    [
        drop(".alpha"),
        drop("mid_block_attentions_0_proj_in.alpha"),
        rename("mid_block_attentions_0_proj_in", "mid_block_attentions_0_proj_of"),
        rename("up_blocks_0_resnets_0_conv1", "up_blocks_0_resnets_1_conv1"),
        lambda tensors: tensors | {"lora_unet_conv_up.lora_down.weight": torch.zeros(2, 8)},
        lambda tensors: tensors | {"lora_unet_conv_up.alpha": torch.tensor(1.0)},
        lambda tensors: {name: -tensor if "conv_in.lora_up" in name else tensor for name, tensor in tensors.items()},
        lambda tensors: {name: tensor.half() for name, tensor in tensors.items()},
    ],
    ids=["no alpha", "an alpha less", "a renamed layer", "a layer twice", "a layer more", "a tensor more", "a sign",
         "less precise"],
)  # fmt: skip
def test_a_faulty_kohya_file_is_refused(
    fault: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    everywhere: Exported,
    tmp_path: Path,
) -> None:
    _, file, reference = everywhere
    export.check_kohya(file, reference)
    save_file(fault(load_file(file)), tmp_path / file.name)
    with pytest.raises(UserError, match=r"wound\.safetensors: not exported: "):
        export.check_kohya(tmp_path / file.name, reference)


@pytest.fixture(scope="module")
def everywhere(conv_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """An adapter of all layers, its export in kohya's format, and what that must reproduce."""
    folder = tmp_path_factory.mktemp("everywhere")
    adapter, _ = train(conv_base, folder, EVERYWHERE)
    export.export_kohya(adapter, conv_base, folder / "wound.safetensors")
    return adapter, folder / "wound.safetensors", export.load_reference(adapter, conv_base)[1]


def test_a_folder_that_lost_its_alpha_or_a_layer_is_refused(everywhere: Exported, tmp_path: Path) -> None:
    adapter, _, reference = everywhere
    tensors = load_file(adapter)
    with safe_open(adapter, framework="pt") as file:
        metadata = file.metadata()
    save_file(tensors, tmp_path / WEIGHTS_NAME)  # without metadata alpha is taken for the rank
    with pytest.raises(UserError, match="layers are read otherwise"):
        export.check_diffusers(tmp_path, reference)
    less = {name: tensor for name, tensor in tensors.items() if "conv_in.lora_B" not in name}
    save_file(less, tmp_path / WEIGHTS_NAME, metadata)
    with pytest.raises(UserError, match="not exported"):
        export.check_diffusers(tmp_path, reference)
    save_file(tensors, tmp_path / WEIGHTS_NAME, metadata)
    export.check_diffusers(tmp_path, reference)


def test_a_merged_folder_without_the_adapter_or_with_a_weight_less_is_refused(
    everywhere: Exported, conv_base: Path, tmp_path: Path
) -> None:
    _, _, reference = everywhere
    with pytest.raises(UserError, match="deviates by"):
        export.check_merged(conv_base, reference)
    folder = tmp_path / "merged"
    shutil.copytree(conv_base, folder)
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    save_file(drop("conv_in.bias")(load_file(weights)), weights, {"format": "pt"})
    with pytest.raises(UserError, match=r"1 weights missing or unknown, such as conv_in\.bias"):
        export.check_merged(folder, reference)


def test_a_failed_export_leaves_no_file(micro_base: Path, tmp_path: Path) -> None:
    unet = load_bare(micro_base)
    add_adapter(unet, ATTENTION, seed=0)
    save_adapter(unet, tmp_path / WEIGHTS_NAME)
    out = tmp_path / "out/wound.safetensors"
    with pytest.raises(UserError, match="changes nothing: it has not been trained"):
        export.export_kohya(tmp_path / WEIGHTS_NAME, micro_base, out)
    assert list(out.parent.iterdir()) == []
    out.touch()
    with pytest.raises(UserError, match="exists already"):
        export.export_kohya(tmp_path / WEIGHTS_NAME, micro_base, out)
    with pytest.raises(UserError, match=r"ends with \.safetensors"):
        export.export_kohya(tmp_path / WEIGHTS_NAME, micro_base, out.with_suffix(".pt"))


def test_layers_of_sdxl_have_the_original_names() -> None:
    """Names from files that sd-scripts wrote for SDXL and for Stable Diffusion 1."""
    xl = {
        "addition_embed_type": "text_time",
        "layers_per_block": 2,
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    }
    names = {
        "down_blocks.0.resnets.1.conv1": "input_blocks_2_0_in_layers_2",
        "down_blocks.0.downsamplers.0.conv": "input_blocks_3_0_op",
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q":
            "input_blocks_4_1_transformer_blocks_0_attn1_to_q",
        "down_blocks.2.attentions.1.proj_in": "input_blocks_8_1_proj_in",
        "mid_block.attentions.0.transformer_blocks.9.attn2.to_out.0":
            "middle_block_1_transformer_blocks_9_attn2_to_out_0",
        "mid_block.resnets.1.time_emb_proj": "middle_block_2_emb_layers_1",
        "up_blocks.0.attentions.2.transformer_blocks.0.ff.net.0.proj":
            "output_blocks_2_1_transformer_blocks_0_ff_net_0_proj",
        "up_blocks.0.upsamplers.0.conv": "output_blocks_2_2_conv",
        "up_blocks.2.resnets.2.conv_shortcut": "output_blocks_8_0_skip_connection",
        "add_embedding.linear_2": "label_emb_0_2",
    }  # fmt: skip
    assert {name: kohya_name(name, xl) for name in names} == {name: f"lora_unet_{to}" for name, to in names.items()}
    one = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    assert kohya_name(one, {"addition_embed_type": None}) == f"lora_unet_{one.replace('.', '_')}"


def test_metadata_name_model_and_training(everywhere: Exported, tmp_path: Path) -> None:
    _, file, _ = everywhere
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    assert metadata["ss_network_module"] == "networks.lora"
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("2", "5.0")
    assert (metadata["ss_base_model_version"], metadata["ss_v2"]) == ("sd_v1_v", "False")
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert (metadata["modelspec.prediction_type"], metadata["modelspec.title"]) == ("v", "wound")
    data = file.read_bytes()
    header = int.from_bytes(data[:8], "little")
    assert metadata["modelspec.hash_sha256"] == "0x" + hashlib.sha256(data[8 + header :]).hexdigest()

    old, wide = {"addition_embed_type": None, "cross_attention_dim": 768}, {"addition_embed_type": "text_time"}
    new = old | {"cross_attention_dim": 1024}
    assert base_version(old, "epsilon") == ("sd_v1", "stable-diffusion-v1")
    assert base_version(new, "epsilon") == ("sd_v2", "stable-diffusion-v2-512")
    assert base_version(new, "v_prediction") == ("sd_v2_v", "stable-diffusion-v2-768-v")
    assert base_version(wide, "epsilon") == ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base")
