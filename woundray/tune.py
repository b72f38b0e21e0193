"""Search the hyperparameters of an adapter: Ray Tune, Optuna and ASHA; every trial in MLflow."""

from typing import TYPE_CHECKING, Any

from woundray.cli import Command, Stages, parse, run

if TYPE_CHECKING:
    from woundray.search.conduct import Conclusion


class Tune(Command):
    """Searches the hyperparameters of an adapter: the main job.

    Every trial trains one adapter; the one whose pictures are nearest to photographs of held-out patients wins.
    """

    space: str | None = None
    """Search space: a packaged name or a YAML file; short for --study.space."""
    trials: int | None = None
    """Configurations to try; short for --study.trials."""
    workers: int | None = None
    """Processes of one trial; short for --hardware.workers."""

    def shortcuts(self) -> dict[str, Any]:
        """Settings that have a flag of their own."""
        return super().shortcuts() | {
            "study.space": self.space,
            "study.trials": self.trials,
            "hardware.workers": self.workers,
        }


def main() -> None:
    """Entry point of `woundray tune`."""
    run(_tune)


def _tune() -> None:
    config = parse(Tune).settings
    from woundray.search.conduct import conduct

    with Stages() as stages:
        print(summary(conduct(config, stages)))


def summary(conclusion: "Conclusion") -> str:
    """What a study came to, and what to do next."""
    study, materials = conclusion.study, conclusion.materials
    objective, best = study.config.metrics.objective, study.best
    base = materials.baseline.get(objective)
    values = "  ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in best.values.items()
    )
    lines = [
        f"best trial   {best.number} ({best.id}), epoch {best.best_epoch}: {objective} {best.best_score:.4g}",
        f"             base model {base:.4g}" if base is not None else "",
        f"             real photographs against real ones {materials.reference.floor}",
        f"settings     {values}",
        f"adapter      {study.checkpoint}",
        f"pictures     {study.grid}",
        "",
        f"draw more    python -m woundray.generate --from {study.checkpoint} -n 100 --grid",
        f"compare      mlflow ui --backend-store-uri {conclusion.tracking_uri}",
        f"watch        {conclusion.cluster.dashboard} while a study runs; token: {conclusion.cluster.token_command}",
    ]
    return "\n".join(line for index, line in enumerate(lines) if line or index == 6)


if __name__ == "__main__":
    main()
