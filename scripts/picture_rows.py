"""Figure of a study for the README: rows of held-out pictures, of the base model's and of the best trial's.

python scripts/picture_rows.py woundray-runs/study-I-... docs/practice.png
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from woundray.config.layers import read_yaml

GAP_PX = 2  # between pictures of a grid, as woundray.sampling.grids.make_grid draws them
COLUMNS = 10


def main() -> None:
    study, out = Path(sys.argv[1]), Path(sys.argv[2])
    config = read_yaml(study / "config.yaml")
    model = config["model"]
    assert isinstance(model, dict)
    side = int(model["resolution"])
    grids = [study / "precomputed/reference.png", study / "precomputed/base_model.png", study / "best/grid.png"]
    rows = [np.concatenate(pictures(path, side)[:COLUMNS], axis=1) for path in grids]
    Image.fromarray(np.concatenate(rows)).save(out)


def pictures(path: Path, side_px: int) -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    """Return the images of a grid, row by row, each with a white edge on the right and below."""
    sheet = np.pad(np.asarray(Image.open(path)), ((0, GAP_PX), (0, GAP_PX), (0, 0)), constant_values=255)
    step = side_px + GAP_PX
    return [
        sheet[top : top + step, left : left + step]
        for top in range(0, sheet.shape[0], step)
        for left in range(0, sheet.shape[1], step)
    ]


if __name__ == "__main__":
    main()
