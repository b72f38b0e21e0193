"""Draw docs/architecture.svg: the folders of woundray by layer, and the way of a photograph through them.

Layers are those that import-linter enforces (pyproject.toml); a folder's line is the first one of its docstring.

    python scripts/draw_architecture.py
"""

import ast
import tomllib
from dataclasses import dataclass
from html import escape
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PICTURE = REPOSITORY / "docs" / "architecture.svg"

WIDTH, ROW, GAP, LEFT = 980, 46, 8, 20
STYLE = (
    "text{font:13px sans-serif;fill:#222}.name{font-weight:600}.small{font-size:11px;fill:#555}"
    "rect{fill:#f4f6f8;stroke:#9aa5b1}.way rect{fill:#e8f1ec;stroke:#6b9a80}line{stroke:#6b9a80;stroke-width:1.5}"
)
COMMANDS = "commands"

WAY_OF_A_PHOTOGRAPH = (
    ("photograph", "data/prepare"),
    ("view", "data/image_source"),
    ("latent", "data/latent_cache"),
    ("adapter", "training/loop"),
    ("images", "sampling/pipeline"),
    ("scores", "evaluation/epoch_metrics"),
    ("best trial", "search/finalists"),
    ("data set", "generation/"),
    ("kappa", "downstream/"),
)
"""What a photograph becomes, and where."""


@dataclass(frozen=True)
class Box:
    """A folder of a layer: its name, and what is in it in one line."""

    name: str
    text: str


def read_layers() -> list[list[Box]]:
    """Folders by layer, the highest first; modules that lie at the top are one box, `commands`."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(c for c in settings["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    layers: list[list[Box]] = [
        [Box(COMMANDS, "tune, train, generate, evaluate, compare, augment, prepare, doctor ...")]
    ]
    for layer in contract["layers"]:
        names = [name.strip().removeprefix("woundray.") for name in layer.split("|")]
        folders = [name for name in names if (REPOSITORY / "woundray" / name).is_dir()]
        if folders:
            layers.append([Box(name, _first_line(name)) for name in folders])
    return layers


def _first_line(folder: str) -> str:
    """First line of a folder's docstring."""
    text = (REPOSITORY / "woundray" / folder / "__init__.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]


def draw() -> str:
    """The picture as SVG."""
    parts, y = [], 34
    parts.append(f'<text x="{LEFT}" y="20" class="name">Folders: each imports from those below it alone</text>')
    for layer in read_layers():
        width = (WIDTH - 2 * LEFT - GAP * (len(layer) - 1)) / len(layer)
        for number, box in enumerate(layer):
            parts.append(_box(LEFT + number * (width + GAP), y, width, box))
        y += ROW + GAP
    y += 30
    parts.append(f'<text x="{LEFT}" y="{y - 10}" class="name">The way of a photograph</text>')
    parts.append(_way(y))
    height = y + 60
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
    title = "<title>Folders of woundray by layer, and the way of a photograph through them</title>"
    background = f'<path d="M0 0h{WIDTH}v{height}H0z" fill="#fff"/>'
    return f"{head}{title}<style>{STYLE}</style>{background}{''.join(parts)}</svg>\n"


def _box(x: float, y: float, width: float, box: Box) -> str:
    letters = int((width - 16) / 5.9)
    text = box.text if len(box.text) <= letters else box.text[: letters - 1].rsplit(" ", 1)[0] + " …"
    return (
        f'<g><rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{ROW}" rx="5"/>'
        f'<text x="{x + 8:.0f}" y="{y + 18}" class="name">{escape(box.name)}</text>'
        f'<text x="{x + 8:.0f}" y="{y + 35}" class="small">{escape(text)}</text></g>'
    )


def _way(y: int) -> str:
    count = len(WAY_OF_A_PHOTOGRAPH)
    width = (WIDTH - 2 * LEFT - 14 * (count - 1)) / count
    parts = ['<g class="way">']
    for number, (name, where) in enumerate(WAY_OF_A_PHOTOGRAPH):
        x = LEFT + number * (width + 14)
        if number:
            parts.append(f'<line x1="{x - 14:.0f}" y1="{y + 23}" x2="{x:.0f}" y2="{y + 23}"/>')
        folder, _, module = where.partition("/")
        parts.append(
            f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="52" rx="5"/>'
            f'<text x="{x + 6:.0f}" y="{y + 17}" class="name">{escape(name)}</text>'
            f'<text x="{x + 6:.0f}" y="{y + 32}" class="small">{escape(folder)}/</text>'
            f'<text x="{x + 6:.0f}" y="{y + 45}" class="small">{escape(module[:17])}</text>'
        )
    return "".join(parts) + "</g>"


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
