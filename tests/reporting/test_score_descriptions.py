"""Plain descriptions of scores: every score has one, and docs/scores.md says the same."""

import re
from pathlib import Path

from woundray.metrics.score import Score
from woundray.metrics.threshold import Threshold
from woundray.reporting.score_descriptions import (
    DESCRIPTIONS,
    NOT_EVALUATED,
    describe,
    missed_lines,
    missed_thresholds,
)

PAGE = Path(__file__).parents[2] / "docs/scores.md"
EVALUATED = [
    "fd_lite0", "kid_lite0", "mmd_rbf_lite0", "precision_lite0", "recall_lite0", "density_lite0", "coverage_lite0",
    "diversity_lite0", "inception_score_lite0", "copy_rate", "train_gap_lite0", "mifid_lite0", "auth_pct", "c_t",
    "ssim_nn", "lpips_nn", "knn_share", "usable", "fid", "kid", "fd_dinov2_vits14", "copy_rate_sscd",
]  # fmt: skip


def test_every_score_has_a_description() -> None:
    assert [name for name in EVALUATED if not describe(name)] == []
    assert describe("fid") != describe("fd_lite0") == DESCRIPTIONS["fd"]
    assert describe("unknown") == ""


def test_the_page_has_the_same_descriptions() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("| score | what it is |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| `")]
    described = {describe(name): text.strip() for names, text in rows for name in re.findall(r"`(\w+)`", names)}
    assert {text: text for text in DESCRIPTIONS.values()} == described


def test_missed_thresholds_in_words() -> None:
    score = Score("knn_share", 0.61, 50, None, 0, "lite0_head", real=0.97, threshold=Threshold(0.8, "min"))
    assert missed_lines([score]) == [
        "threshold missed: knn_share 61 % (photographs: 97 %): share of pictures that look like a wound"
    ]
    assert missed_thresholds(["knn_share"]) == "missed: knn_share (share of pictures that look like a wound)"
    assert missed_thresholds([]) == "every threshold that real photographs reach is reached"
    assert missed_thresholds([NOT_EVALUATED]).startswith("not checked")
