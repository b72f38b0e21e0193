"""Blank, dark and flat pictures are refused, photographs are not."""

import numpy as np
import pytest
import torch

from woundray.config import FilteringConfig, HeuristicsConfig
from woundray.evaluation.filter_rules import heuristics, passes_filter


def colour(red: int, green: int, blue: int) -> torch.Tensor:
    return torch.tensor([red, green, blue], dtype=torch.uint8).view(3, 1, 1).expand(3, 16, 16)


WOUND = torch.randint(30, 220, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("picture", "fails"),
    [
        (WOUND, set()),
        (colour(0, 0, 0), {"blank", "brightness", "flat"}),
        (colour(255, 255, 255), {"blank", "brightness", "flat"}),
        (colour(190, 80, 70), {"flat"}),
        (WOUND // 25, {"brightness", "blank"}),
    ],
)
def test_heuristics(picture: torch.Tensor, fails: set[str]) -> None:
    found = heuristics(torch.stack([WOUND, picture]), HeuristicsConfig())
    assert all(passes[0] for passes in found.values())
    assert {name for name, passes in found.items() if not passes[1]} == fails


def test_a_check_that_is_off_refuses_nothing() -> None:
    off = HeuristicsConfig.model_validate({"check_saturation": {"enabled": False}})
    assert "flat" not in heuristics(colour(190, 80, 70)[None], off)


PASSES = {"knn": np.array([True, True, False, False]), "copies": np.array([True, False, True, False])}


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"strategy": "all"}, [True, False, False, False]),
        ({"strategy": "any"}, [True, True, True, False]),
        ({"strategy": "min_passing", "min_passing_metrics": 1}, [True, True, True, False]),
        ({"strategy": "min_passing", "min_passing_metrics": 5}, [True, False, False, False]),  # all there are
        ({"strategy": "all", "metrics": ["knn", "lpips"]}, [True, True, False, False]),  # LPIPS was not taken
        ({"enabled": False}, [True, True, True, True]),
    ],
)
def test_strategies(settings: dict[str, object], kept: list[bool]) -> None:
    assert passes_filter(PASSES, {}, FilteringConfig.model_validate(settings), 4).tolist() == kept


def test_a_simple_check_refuses_whatever_the_metrics_say() -> None:
    simple = {"blank": np.array([False, True, True, True])}
    assert passes_filter(PASSES, simple, FilteringConfig(strategy="any"), 4).tolist() == [False, True, True, False]
