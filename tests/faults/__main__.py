"""Studies under seeded kills, and a table of them: `python -m faults --kills worker driver study --seed 3`.

With `node` among the kills the study runs on two `ray start` nodes of this machine. `--workers 2` kills nothing: it
runs a study there whose trials have two ranks, and says on which nodes they were.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import get_args

from faults.harness import Kill, Kind, Study, TwoNodes, check, draw_kills


def main() -> None:
    """One study; says what was killed when, how long it took, and that all invariants hold."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--kills", nargs="*", choices=get_args(Kind), default=["worker", "driver", "study"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--workers", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        if chosen.workers > 1:
            rows = spread(Path(folder), workers=chosen.workers, trials=chosen.trials, epochs=chosen.epochs)
        else:
            rows = run(Path(folder), chosen.kills, seed=chosen.seed, trials=chosen.trials, epochs=chosen.epochs)
    for row in rows:
        sys.stdout.write(row + "\n")


def run(folder: Path, kinds: list[Kind], *, seed: int, trials: int, epochs: int) -> list[str]:
    """Runs a study through the kills and checks it; a row a kill."""
    nodes = TwoNodes(folder) if "node" in kinds else None
    study = Study.of(folder / "study", trials=trials, epochs=epochs)
    rows = []
    try:
        if nodes:
            nodes.add_node()
            study.variables = nodes.variables
        started = time.monotonic()
        study.start()
        for kill in draw_kills(kinds, epochs=trials * epochs - 1, seed=seed):
            study.wait_for_epochs(kill.after_epochs)
            time.sleep(kill.delay_s)
            done = strike(study, nodes, kill)
            rows.append(
                f"seed {seed}  {kill.kind:6}  after {kill.after_epochs} epochs + {kill.delay_s} s"
                f"  at {time.monotonic() - started:5.0f} s  {'killed' if done else 'none was there'}"
            )
        code = study.wait()
        assert code == 0, (study.folder / "output.txt").read_text()
        check(study, folder / "undisturbed")
    finally:
        study.end()
        if nodes:
            nodes.end()
    kept = f"finished trials at a kill: {len(study.survivors)}, lost: 0; adapters bit-identical"
    return [*rows, f"seed {seed}  complete at {time.monotonic() - started:5.0f} s: {trials} trials; {kept}"]


def spread(folder: Path, *, workers: int, trials: int, epochs: int) -> list[str]:
    """A study on two nodes of one CPU each; a row a trial: the nodes of its ranks."""
    nodes = TwoNodes(folder)
    study = Study.of(folder / "study", trials=trials, epochs=epochs, workers=workers)
    study.variables = nodes.variables
    try:
        nodes.add_node()
        started = time.monotonic()
        study.start()
        code = study.wait()
        assert code == 0, (study.folder / "output.txt").read_text()
    finally:
        study.end()
        nodes.end()
    rows = []
    for trial in sorted((study.folder / "trials").iterdir()):
        where = [(trial / f"rank_{rank}.node").read_text() for rank in range(workers)]
        reported = sorted(event.epoch for event in study.epochs() if event.trial == trial.name)
        rows.append(f"trial {trial.name}  epochs {reported}  ranks on nodes {', '.join(node[:8] for node in where)}")
        assert len(set(where)) == workers
    return [*rows, f"complete at {time.monotonic() - started:5.0f} s"]


def strike(study: Study, nodes: TwoNodes | None, kill: Kill) -> bool:
    """Kills, and starts again what does not come back by itself."""
    if kill.kind == "node":
        assert nodes is not None
        nodes.kill_node()
        nodes.add_node()
        return True
    done = study.interrupt() if kill.kind == "interrupt" else study.kill(kill.kind)
    if done and kill.kind in ("study", "interrupt"):
        study.start()
    return done


if __name__ == "__main__":
    main()
