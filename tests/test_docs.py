"""The documentation is true: commands parse and run, quoted messages exist, the site builds from the code alone."""

import ast
import contextlib
import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from adapters import write_checkpoint

from woundray.__main__ import COMMANDS
from woundray.cli import command
from woundray.config import Config
from woundray.training.checkpoint import link

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]

RUN_HERE = {"doctor", "fetch", "prepare", "generate", "evaluate", "compare", "export", "completion"}
"""Commands that this module runs as they stand in the documentation, but for the number of pictures."""

NOT_RUN_HERE = {
    # woundray's own: they are parsed here, every setting is checked, and another test runs them
    r"woundray.(tune|train|sync)\b": "minutes each: tests/test_main_job.py, tests/test_outage.py and others",
    r"--phantoms": "makes the raw photographs of `workplace`",
    r"woundray.fetch .*(sd21|inception|--import)": "wants the internet: tests/weights",
    r"woundray.augment": "trains adapters and classifiers: tests/downstream runs it",
    r"--from (runs|models):|woundray-runs/|--again|OTHER": "wants a study: tests/checkpoints",
    r"RAY_ADDRESS=": "wants a cluster: tests/search/test_study.py",
    r"woundray.doctor .*--data|--check_weights": "tests/diagnosis/test_diagnosis.py",
    r"--format merged": "held to the rounding of trained weights: tests/models/test_export.py",
    # other programs
    r"^python scripts/(bench_|regret)": "minutes to hours; for developers of woundray",
    r"^python scripts/check_gpu": "wants a GPU, or minutes: tests/test_check_gpu.py",
    r"^make (tune|install|test)\b": "installs everything: what a fresh clone's build does",
    r"^(source|export|cat|lora\.|training\.|EOF|until)": "lines of a shell, and a file that it writes",
    r"^MLFLOW_DISABLE_TELEMETRY=true mlflow ui": "a server that does not end; MLflow's own tests",
    r"^(RAY_\w+=\S+ )*ray ": "a cluster of several machines: Ray's own command line",
    r"^(ssh|curl) ": "wants another machine, or a study that runs",
    r"^(mkdir|cp|prometheus) ": "Prometheus beside a study that runs",
    r"^pip ": "wants a package index",
}


def commands() -> Iterator[tuple[Path, str]]:
    """Page and line of every command in a fenced block that has no language, or `bash`."""
    for page in PAGES:
        fenced = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        for block in (text for language, text in fenced if language in ("", "bash")):
            for line in block.replace("\\\n", " ").splitlines():
                command = re.sub(r"\s+#.*", "", line).strip()
                if command and not command.startswith("#"):
                    yield page, command


def words(command: str) -> list[str]:
    """Name and arguments of a woundray command; empty for another program."""
    without = re.sub(r"^(\w+=\S+ )+", "", command.split(" > ", maxsplit=1)[0])
    found = re.match(r"(?:python -m woundray\.|woundray )(\w+)(.*)", without)
    return [found[1], *shlex.split(found[2])] if found else []


LINES = list(dict.fromkeys(line for _, line in commands()))
OURS = [line for line in LINES if words(line)]


@pytest.mark.parametrize("line", OURS)
def test_flags_and_settings_are_known(line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    name, *arguments = words(line)
    described = getattr(importlib.import_module(f"woundray.{name}"), name.capitalize())
    if issubclass(described, command.Command):
        command.parse(described, arguments)
        return
    command.read_flags(described, arguments, prog=name)


def why_not(line: str) -> str:
    """Why a command of the documentation is not run by this module; empty: it is."""
    return next((reason for pattern, reason in NOT_RUN_HERE.items() if re.search(pattern, line)), "")


def test_every_command_is_run_or_marked_with_why_it_is_not() -> None:
    assert [line for line in LINES if not why_not(line) and (words(line) or [""])[0] not in RUN_HERE] == []
    assert len(OURS) > 30  # the blocks were found
    unused = [pattern for pattern in NOT_RUN_HERE if not any(re.search(pattern, line) for line in LINES)]
    assert unused == []


def test_no_command_tells_the_makers_of_mlflow_or_ray_of_its_use() -> None:
    printed = (REPOSITORY / "woundray/search/final_message.py").read_text(encoding="utf-8")
    for program, variable in (
        ("mlflow ui", "MLFLOW_DISABLE_TELEMETRY=true"),
        ("ray start", "RAY_USAGE_STATS_ENABLED=0"),
    ):
        typed = [line for line in [*LINES, *printed.splitlines()] if program in line and "--address" not in line]
        assert typed
        assert [line for line in typed if variable not in line] == []


@pytest.fixture(scope="module")
def open_session(tmp_path_factory: pytest.TempPathFactory, micro_base: Path, micro_config: Config) -> Path:
    """A folder as a user's after a study: runs, `best`, and raw photographs of the tutorial."""
    folder = tmp_path_factory.mktemp("workplace")
    checkpoint = write_checkpoint(folder / "woundray-runs/study/epoch_0001", micro_base, micro_config)
    link(folder / "woundray-runs/best", str(checkpoint.relative_to(folder / "woundray-runs")))
    call("prepare", ["--phantoms", "40", "--out", str(folder / "raw")])
    return folder


def call(name: str, arguments: list[str]) -> int:
    """Exit code of a command, in this process: the imports of one of its own take longer than the command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"woundray {name}", *arguments])
        try:
            importlib.import_module(f"woundray.{name}").main()
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


@pytest.mark.parametrize("line", [line for line in OURS if not why_not(line)])
@pytest.mark.filterwarnings("ignore")  # of other packages
def test_commands_run(
    line: str, open_session: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(open_session)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    name, *arguments = words(re.sub(r"-n \d+", "-n 6", line))
    out = open_session / arguments[arguments.index("--out") + 1] if "--out" in arguments else None
    assert call(name, arguments) == 0
    shown = capsys.readouterr()
    assert shown.out.strip() or (out and out.exists())


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.stem)
def test_pages_in_the_repository_are_as_the_code_makes_them(page: Path) -> None:
    with scripts_on_path():
        import docs_pages

        text = page.read_text(encoding="utf-8")
        assert "<!-- insert" not in text
        assert docs_pages.written(text) == text, "python scripts/docs_pages.py"


def test_every_part_of_the_code_is_on_a_page() -> None:
    with scripts_on_path():
        import docs_pages

        texts = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert sorted(re.findall(r"<!-- made of the code: (\w+) -->", texts)) == sorted(docs_pages.PARTS)
    assert "| `lora.rank` |" in texts and "base: sd21" in texts


def test_the_pages_list_every_command() -> None:
    with scripts_on_path():
        import docs_pages

        text, settings = docs_pages.commands(), docs_pages.settings()
    assert [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")] == list(COMMANDS)
    assert "| `--from` |" in text
    missing = [name for name in Config().flat() if f"`{name}`" not in settings and not name.startswith("quality.")]
    assert missing == []
    assert "None |" not in settings  # every setting says what it does


MEND = re.compile(
    r"\b(give|set|run|use|add|raise|lower|put|look|see|name|leave|wait|make|install|delete|write|choose|begin|save|"
    r"move|mount|start|stop|ask|remove|keep|fetch|check|try|take|multiply|copy|evaluate|mend|should|must)\b"
    r"|did you mean|is not one of|has no effect|goes on|brings it back|is written|stands in quotes|tries again"
)
REASONS = re.compile(r"^woundray/data/(table_cells|image_files|prepare|raw_tables|manifest|tables|manifest_rows)\.py$")
"""Modules whose messages are of one picture, row or cell, which is left out: it is the reason that is wanted."""


def test_every_message_says_what_to_do() -> None:
    """The mend stands in the message, or in what is put in."""
    page = (REPOSITORY / "docs/messages.md").read_text(encoding="utf-8")
    module, without = "", []
    for line in page.splitlines():
        module = line.removeprefix("## ") if line.startswith("## ") else module
        text = line.removeprefix("- ")
        if line.startswith("- ") and not MEND.search(text) and not text.endswith("...") and not REASONS.match(module):
            without.append(f"{module}: {text}")
    assert without == []


@contextlib.contextmanager
def scripts_on_path() -> Iterator[None]:
    sys.path.insert(0, str(REPOSITORY / "scripts"))
    try:
        yield
    finally:
        sys.path.remove(str(REPOSITORY / "scripts"))


def messages() -> list[str]:
    """Every message of the code as text, with ... for what is put in."""
    found = []
    for path in (REPOSITORY / "woundray").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_quoted_messages_are_the_codes_own() -> None:
    page = (REPOSITORY / "docs/troubleshooting.md").read_text(encoding="utf-8")
    quoted = [found for found in re.findall(r"^\| `(.+?)` \|", page, re.MULTILINE) if found != "CUDA out of memory"]
    assert len(quoted) > 25
    known = messages()
    for message in quoted:
        pattern = ".*".join(re.escape(part.strip()) for part in message.split("..."))
        assert any(re.search(pattern, text, re.DOTALL) for text in known), message


def test_the_site_builds_from_the_repository_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.glob("*.html")}
    assert {page.with_suffix(".html").name for page in PAGES[1:]} <= pages.keys()
    assert "<h1" in pages["index.html"] and "With your photographs" in pages["index.html"]
    for name, text in pages.items():
        loaded = re.findall(
            r'<(?:script|img|link rel="(?:stylesheet|preconnect|icon)")[^>]+(?:src|href)="(http[^"]+)', text
        )
        assert loaded == [], name
