"""Image grids, plain or with labels.

Own code beside torchvision.utils.make_grid, which draws a border and has no labels.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_GAP_PX = 2
_MIN_FONT_PX = 10


def make_grid(images: Tensor, *, columns: int = 0, gap_px: int = _GAP_PX) -> Tensor:
    """Arrange uint8 images (N, 3, H, W) in one image (3, rows H, columns W) with white gaps.

    Args:
        columns: 0: as many as make it nearly square.
    """
    count, _, height, width = images.shape
    columns = columns or math.isqrt(count - 1) + 1
    rows = -(-count // columns)
    grid = torch.full(
        (3, rows * (height + gap_px) - gap_px, columns * (width + gap_px) - gap_px), 255, dtype=torch.uint8
    )
    for index, image in enumerate(images):
        top, left = index // columns * (height + gap_px), index % columns * (width + gap_px)
        grid[:, top : top + height, left : left + width] = image
    return grid


def make_labelled_grid(rows: Sequence[Tensor], row_labels: Sequence[str], column_labels: Sequence[str]) -> Tensor:
    """Arrange rows of uint8 images (n, 3, H, W) in one image (3, ., .), row labels at the left, column labels above."""
    count, _, height, width = rows[0].shape
    grid = make_grid(torch.cat(list(rows)), columns=count)
    row_step, column_step = height + _GAP_PX, width + _GAP_PX
    font_px = max(_MIN_FONT_PX, height // 9)
    font = ImageFont.load_default(size=font_px)
    left = _GAP_PX * 4 + math.ceil(max(map(font.getlength, row_labels)))
    top = 2 * font_px
    # label every n-th column only, where labels would touch
    label_every = math.ceil(max(map(font.getlength, column_labels)) * 1.2 / column_step)
    page = Image.new("RGB", (left + grid.shape[2], top + grid.shape[1]), "white")
    page.paste(Image.fromarray(grid.permute(1, 2, 0).numpy()), (left, top))
    draw = ImageDraw.Draw(page)
    for row, label in enumerate(row_labels):
        draw.text((_GAP_PX, top + row * row_step + height / 2), label, fill="black", font=font, anchor="lm")
    for column in range(0, count, label_every):
        position = (left + column * column_step, top / 2)
        draw.text(position, column_labels[column], fill="black", font=font, anchor="lm")
    return torch.from_numpy(np.array(page)).permute(2, 0, 1).contiguous()
