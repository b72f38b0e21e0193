"""Convolutional classifiers with all weights trained: equal steps for every arm, images sampled by weight."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR

from woundray.downstream.arms import TrainingSet
from woundray.downstream.cohort import Rows
from woundray.errors import UserError
from woundray.metrics.extractors import load_lite0

FINETUNED = "lite0-finetuned"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_LITE0 = ((127 / 255,) * 3, (128 / 255,) * 3)
_WEIGHT_DECAY = 0.01


@dataclass(frozen=True)
class NetworkClassifier:
    """A network's name and its training: AdamW, one cycle (Smith & Topin 2019) of the learning rate.

    Batch norms keep their pretrained statistics: a few hundred images give no better ones.
    """

    name: str
    steps: int
    batch_size: int
    learning_rate: float

    def fit_predict(self, train: TrainingSet, test: Tensor, *, classes: int, seed: int) -> Rows:
        """Train and return the classes (m,) of test images, uint8 (m, 3, H, W).

        Batches are sampled by weight. The result is a function of the seed.
        """
        pictures, labels, weights = train.pictures, train.labels, train.weights
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with torch.random.fork_rng():  # new layers and dropout draw from torch's own generator
            torch.manual_seed(seed)
            network = make_network(self.name, classes).to(device)
            optimizer = torch.optim.AdamW(network.parameters(), lr=self.learning_rate, weight_decay=_WEIGHT_DECAY)
            schedule = OneCycleLR(optimizer, self.learning_rate, total_steps=self.steps + 1)
            draws = np.random.default_rng(seed).choice(
                len(labels), size=(self.steps, self.batch_size), p=weights / weights.sum()
            )
            train_mode(network)
            for rows in draws:
                shown = pictures[torch.from_numpy(rows)].to(device)
                loss = functional.cross_entropy(network(shown), torch.from_numpy(labels[rows]).to(device))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
        network.eval()
        with torch.inference_mode():
            scores = [network(part.to(device)).cpu() for part in torch.split(test, self.batch_size)]
        predicted: Rows = torch.cat(scores).argmax(dim=1).numpy()
        return predicted


class Normalise(nn.Module):
    """Normalise uint8 images (n, 3, H, W) by a mean and standard deviation in units of [0, 1]."""

    def __init__(self, mean: tuple[float, ...], sd: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("sd", torch.tensor(sd).view(3, 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        """Scale images as in the pretraining of the network that follows."""
        return (pictures.float() / 255 - self.get_buffer("mean")) / self.get_buffer("sd")


def make_network(name: str, classes: int) -> nn.Module:
    """Load a pretrained network with a new last layer: uint8 (n, 3, H, W) -> logits (n, classes).

    Raises:
        UserError: no such network, or its weights are neither here nor reachable.
    """
    if name == FINETUNED:
        network: nn.Module = load_lite0().requires_grad_(True)
        _replace_last(network, classes)
        return nn.Sequential(Normalise(*_LITE0), network)
    from torchvision import models

    if name in models.list_models():
        network = _pretrained(name)
        _replace_last(network, classes)
        return nn.Sequential(Normalise(*_IMAGENET), network)
    try:
        import timm
    except ImportError:
        raise UserError(
            f"effect.classifier: {name} is not lite0, {FINETUNED}, command or a network of torchvision; "
            "for those of timm, `pip install timm`"
        ) from None
    if name not in timm.list_models():
        raise UserError(
            f"effect.classifier: {name} is a network of neither torchvision nor timm; give the name "
            "of one, such as resnet18"
        )
    made: nn.Module = timm.create_model(name, pretrained=True, num_classes=classes)
    return nn.Sequential(Normalise(*_IMAGENET), made)


def train_mode(network: nn.Module) -> None:
    """Set training mode, except for batch norms."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def _pretrained(name: str) -> nn.Module:
    from torchvision import models

    try:
        network: nn.Module = models.get_model(name, weights="DEFAULT")
    except OSError as error:
        raise UserError(
            f"effect.classifier: the weights of {name} are not in $TORCH_HOME/hub/checkpoints and can not be fetched "
            f"({error}); put them there, or take lite0-finetuned"
        ) from None
    return network


def _replace_last(network: nn.Module, classes: int) -> None:
    """Replace the last linear layer by one with `classes` outputs."""
    name, last = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, nn.Linear(last.in_features, classes))
