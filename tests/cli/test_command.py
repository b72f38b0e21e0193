"""The command line as a user meets it: in a process of its own."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from woundray import __version__
from woundray.__main__ import COMMANDS
from woundray.augment import Augment
from woundray.cli import terminal
from woundray.cli.command import Command, choose_profile, parse
from woundray.cli.terminal import rate
from woundray.config import Config
from woundray.config.error_messages import fields
from woundray.errors import UserError
from woundray.tune import Tune


def woundray(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "woundray", *arguments], capture_output=True, text=True, check=False)


def test_flags_reach_the_settings_in_both_spellings() -> None:
    text = "--phase P --trials 3 --lora.rank=4 --lora.target-modules to_q to_k --data.flip false"
    command = parse(Tune, text.split())
    settings = command.settings
    assert (settings.phase, settings.study.trials, settings.lora.rank) == ("P", 3, 4)
    assert settings.lora.target_modules == ("to_q", "to_k")
    assert settings.data.flip is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--trails 3", "did you mean --trials?"),
        ("--lora.rnak 3", "did you mean --lora.rank?"),
        ("--lora.rank", "--lora.rank has no value"),
        ("--lora.rank x", "--lora.rank should be a valid integer, not x"),
        ("--prompts.negative --x", "--prompts.negative has no value; one that begins with -- is written"),
        ("--lora.rank 4 --lora.rank 8", "--lora.rank is given twice: 4 and 8"),
        ("--lora.rank=4 --lora.rank 8", "--lora.rank is given twice: 4 and 8"),
        ("--trials 3 --trials 5", "--trials is given twice: 3 and 5"),
        ("--trials 3 --study.trials 5", "study.trials is given twice: 3 by its short flag, and 5"),
        ("--data a --data.root b", "data.root is given twice: a by its short flag, and b"),
        ("--lora.rank 4 8", "8 belongs to no flag"),
        ("--prompts.positive a wound", "wound belongs to no flag; a value of several words stands in quotes"),
        ("best", "best belongs to no flag"),
        ("-- --phase", "--phase belongs to no flag"),
        ("--refit true", "true belongs to no flag"),
        ("--data=", "--data is empty"),
        ("--data.root=", "--data.root is empty"),
        ("--trials=", "--trials should be a valid integer, not ''"),
        ("--data.flip maybe", "--data.flip should be a valid boolean"),
        ("--effect.ratios [0.5,1]", "--effect.ratios should be a valid number"),
        ("--phase X", "--phase should be 'I', 'P', 'R' or 'all', not X"),
        ("--training.weight_decay inf", "--training.weight_decay should be a finite number"),
        ("--profile demmo", "did you mean demo?"),
        ("--config none.yaml", "none.yaml: No such file"),
    ],
)
def test_mistakes_name_the_mend(arguments: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(Tune, arguments.split())
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        ("--data.flip no", "data.flip", False),
        ("--data.flip=ON", "data.flip", True),
        ("--training.learning_rate 1e-4", "training.learning_rate", 1e-4),
        ("--hardware.gpus_per_worker 0.5", "hardware.gpus_per_worker", 0.5),
        ("--hardware.gpus_per_worker auto", "hardware.gpus_per_worker", "auto"),
        ("--quality.phase_specific.I.fid 40", "quality.phase_specific.I.fid", 40.0),
        ("--quality.phase_specific.I.fid null", "quality.phase_specific.I.fid", None),
        ("--effect.phases I R", "effect.phases", ["I", "R"]),
        ("--quality.filtering.metrics=knn", "quality.filtering.metrics", ["knn"]),
        ("--data null", "data.root", "null"),
        ("--data.root -x", "data.root", "-x"),
        ("--lora.rank 4 --lora.rank 4", "lora.rank", 4),
        ("--study.trials 3 --trials 3", "study.trials", 3),
    ],
)
def test_a_value_has_the_type_of_its_setting(arguments: str, name: str, value: object) -> None:
    assert parse(Tune, arguments.split()).settings.flat()[name] == value


def test_lists_with_commas_are_those_of_their_settings() -> None:
    settings = parse(Augment, ["--phases", "I, R", "--ratios", "1e-1,1"]).settings
    assert (settings.effect.phases, settings.effect.ratios) == (("I", "R"), (0.1, 1.0))
    for flag in ("--phases=", "--ratios=0.5,x"):
        with pytest.raises(UserError, match=r"--effect\."):
            parse(Augment, [flag])


def test_a_users_mistake_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        raise UserError("data: none\nthere")

    with pytest.raises(SystemExit) as caught:
        terminal.run(body)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "woundray: data: none there\n"


def test_the_profile_is_chosen_and_says_why(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    assert choose_profile(None) == ("demo", "no --data: drawn phantoms and the packaged tiny model")
    with caplog.at_level(logging.INFO, "woundray"):
        parse(Command, ["--data", str(tmp_path)]).log_profile()
    assert "profile demo: " in caplog.text or "profile sd" in caplog.text


@pytest.mark.parametrize("command", ["tune", "train", "generate", "prepare", "fetch", "doctor"])
def test_help_answers_without_torch(command: str) -> None:
    code = "\n".join(
        [
            f"import sys; sys.argv = ['x', '--help']; from woundray.{command} import main",
            "try: main()",
            "except SystemExit: pass",
            "assert not {'torch', 'ray', 'mlflow'} & sys.modules.keys()",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def test_the_program_lists_its_commands_and_refuses_others() -> None:
    assert "tune" in woundray().stdout
    done = woundray("tunes")
    assert done.returncode == 2
    assert "did you mean tune?" in done.stderr
    assert "Traceback" not in done.stderr


def test_completion_knows_commands_flags_and_settings() -> None:
    done = woundray("completion", "bash")
    assert done.returncode == 0, done.stderr
    assert "complete -F _tyro_woundray woundray" in done.stdout
    assert all(f"'{name}': {{'description'" in done.stdout for name in COMMANDS)
    assert "'--lora.rank'" in done.stdout
    assert subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=False).returncode == 0


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_help_has_no_colour_where_none_is_wanted(no_color: str, coloured: bool) -> None:
    code = f"import pty, sys; sys.exit(pty.spawn([{sys.executable!r}, '-m', 'woundray.fetch', '--help']))"
    environment = os.environ | {"NO_COLOR": no_color, "TERM": "xterm"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "usage" in done.stdout
    assert ("\x1b[" in done.stdout) is coloured


def test_rates_are_of_things_or_bytes() -> None:
    assert rate(None, 100) == ""
    assert rate(3.21, 100) == "3.2/s"
    assert rate(41_300_000, 5_200_000_000) == "41.3 MB/s"


def test_a_pipe_gets_a_line_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.ProgressBars() as stages:
        for done in range(4):
            stages("pictures", done, 3)
    assert capsys.readouterr() == ("", "pictures ...\n")


def test_help_is_short_and_all_settings_are_one_flag_away() -> None:
    short, lora, everything = (
        woundray("tune", *words).stdout for words in (["--help"], ["--help", "lora"], ["--help-all"])
    )
    assert len(short.splitlines()) < 80
    assert woundray("tune", "--help", "--phase", "I").stdout == short
    assert "--trials INT" in short
    assert "None" not in short + everything
    assert "--lora.rank INT" not in short
    assert "--lora.rank INT" in lora
    assert "--training.learning_rate" not in lora
    assert all(f"--{name} " in everything for name in fields(Config))


def test_the_version_is_said() -> None:
    assert woundray("--version").stdout == woundray("tune", "--version").stdout == f"woundray {__version__}\n"


@pytest.mark.parametrize("line", ["tune --help-all", "--help", "fetch --list", "doctor --help"])
def test_a_reader_that_closes_the_pipe_is_no_error(line: str) -> None:
    closed = subprocess.Popen(
        [sys.executable, "-m", "woundray", *line.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert closed.stdout is not None
    closed.stdout.close()
    assert closed.stderr is not None
    assert closed.stderr.read() == ""
    assert closed.wait() in (1, 141)
    closed.stderr.close()
