"""Studies and runs under seeded kills, and a table of them: `python -m faults --kills worker driver study --seed 3`.

They are `woundray tune` and `woundray train`, with the packaged model on drawn photographs. With `node` or `head` among
the kills the study runs on two `ray start` nodes of this machine. `--run` kills a single run instead of a study.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import get_args

import yaml

from faults.harness import Command, Kind, TwoNodes, check, draw_kills, strike


def main() -> None:
    """One study or run; says what was killed when, how long it took, and that all invariants hold."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--kills", nargs="*", choices=_kinds(), default=["worker", "driver", "controller", "study"])
    parser.add_argument("--at", nargs="*", type=int, default=[], help="epochs of the kills, in their order; else drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--run", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        home, epochs = Path(folder) / "home", chosen.epochs
        command = (
            Command.run(home, epochs=epochs) if chosen.run else Command.study(home, trials=chosen.trials, epochs=epochs)
        )
        with command.small_disk() if "full disk" in chosen.kills else contextlib.nullcontext():
            rows = run(command, chosen.kills, seed=chosen.seed, at=chosen.at)
    for row in rows:
        sys.stdout.write(row + "\n")


def _kinds() -> list[str]:
    return [name for part in get_args(Kind) for name in (get_args(part) or (part,))]


def run(command: Command, kinds: list[Kind], *, seed: int, at: list[int] | None = None) -> list[str]:
    """Runs a command through the kills and checks it; a row a kill."""
    nodes = TwoNodes(command.home) if {"node", "head"} & set(kinds) else None
    rows = []
    try:
        if nodes:
            nodes.start()
            command.variables = nodes.variables
        started = time.monotonic()
        command.start()
        kills = draw_kills(kinds, epochs=_epochs(command) - 1, seed=seed)
        if at:
            kills = [
                replace(kill, kind=kind, after_epochs=epoch) for kill, kind, epoch in zip(kills, kinds, at, strict=True)
            ]
        for kill in kills:
            done = command.wait_for_epochs(kill.after_epochs)
            time.sleep(kill.delay_s)
            done = done and strike(command, nodes, kill)
            rows.append(
                f"seed {seed}  {kill.kind:12}  after {kill.after_epochs:2} epochs + {kill.delay_s:.2f} s"
                f"  at {time.monotonic() - started:5.0f} s  {'struck' if done else 'none was there'}"
            )
        code = command.wait()
        assert code == 0, command.said()
        ended = time.monotonic() - started
        check(command, command.home / "undisturbed")
    finally:
        command.end()
        if nodes:
            nodes.end()
    kept = f"finished trials at a kill: {len(command.survivors)}, lost: 0; adapters bit-identical"
    return [*rows, f"seed {seed}  complete at {ended:5.0f} s: {len(command.trials())} trials; {kept}"]


def _epochs(command: Command) -> int:
    """Of all trials together."""
    settings = yaml.safe_load((command.home / "settings.yaml").read_text())
    return int(settings["training"]["epochs"]) * int(settings["study"].get("trials", 1))


if __name__ == "__main__":
    main()
