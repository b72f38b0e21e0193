"""Whole runs of the smallest model: checkpoints, bit-identical resume, two ranks equal to one."""

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import distributed as dist
from torch import multiprocessing

from woundray.checkpoints.generate import SamplingOptions, generate_images, open_checkpoint
from woundray.config import Config
from woundray.errors import UserError
from woundray.evaluation import embedders, epoch_metrics
from woundray.models.unet import load_unet
from woundray.models.vae import load_vae
from woundray.sampling.grids import make_grid
from woundray.sampling.pipeline import image_seeds, sample_images
from woundray.training import loop
from woundray.training.checkpoint import link, read_progress, start_from
from woundray.training.distributed import DistributedContext, Value
from woundray.training.loop import stopped_early, train
from woundray.training.precompute import Precomputed, validation_sampler
from woundray.training.train_state import build_train_state
from woundray.weights.diffusers_layout import WEIGHTS_NAME


def run(config: Config, precomputed: Precomputed, output: Path, until: int = 99) -> None:
    """Run the loop in one process; it dies after the report of epoch `until`."""

    def report(metrics: dict[str, float], folder: Path) -> None:
        assert (folder / WEIGHTS_NAME).is_file(), "a report comes after the checkpoint"
        if metrics["epoch"] == until:
            raise KeyboardInterrupt

    train(
        config,
        precomputed=precomputed.folder,
        output=output,
        context=DistributedContext.single(),
        report=report,
    )


def results(output: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    history = json.loads((output / "history.json").read_text())
    scores = [{name: value for name, value in entry.items() if "seconds" not in name} for entry in history]
    return load_file(output / "latest" / "state.safetensors"), scores


@pytest.fixture(scope="module")
def whole(micro_config: Config, micro_precomputed: Precomputed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole")
    run(micro_config, micro_precomputed, output)
    return output


def test_a_checkpoint_samples_its_epochs_images_again(
    whole: Path, micro_config: Config, micro_precomputed: Precomputed
) -> None:
    """Weights, prompt, steps and signal leak are all in the folder."""
    checkpoint, count = (whole / "latest").resolve(), micro_config.validation.grid
    again = make_grid(generate_images(checkpoint, SamplingOptions(count), lambda *_: None)).permute(1, 2, 0)
    grid = torch.tensor(np.asarray(Image.open(checkpoint / "grid.png")))
    assert (again.int() - grid.int()).abs().max() <= 1  # of another batch
    kept, known = open_checkpoint(checkpoint, SamplingOptions(1)).sampler.leak, micro_precomputed.leak
    assert kept is not None and known is not None  # random weights hardly show it
    assert torch.equal(kept.mean, known.mean) and torch.equal(kept.spread, known.spread)


def test_a_run_that_died_and_was_resumed_is_bit_identical(
    micro_config: Config, micro_precomputed: Precomputed, whole: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(micro_config, micro_precomputed, tmp_path, until=2)
    assert read_progress(tmp_path / "latest").epoch == 2
    torch.rand(5)  # another state of the global generator
    run(micro_config, micro_precomputed, tmp_path)
    (state, scores), (resumed_state, resumed_scores) = results(whole), results(tmp_path)
    assert resumed_scores == scores
    assert state.keys() == resumed_state.keys()
    assert all(torch.equal(tensor, resumed_state[name]) for name, tensor in state.items())


def test_best_is_the_earliest_epoch_within_one_sd_of_the_lowest_objective(whole: Path) -> None:
    """The user's earlier system watched `val_fid` where the key was `fid`: best was never saved."""
    history = json.loads((whole / "history.json").read_text())
    assert [entry["epoch"] for entry in history] == [1, 2, 3]
    lowest = min(entry["fd_lite0_z"] for entry in history)  # z counts the floor's sds
    best = next(entry for entry in history if entry["fd_lite0_z"] <= lowest + 1)
    assert (whole / "best").resolve().name == f"epoch_{int(best['epoch']):04d}"
    assert (whole / "latest").resolve().name == "epoch_0003"


def test_training_moves_the_adapter_and_its_average(whole: Path) -> None:
    state, _ = results(whole)
    for kind in ("raw", "ema"):
        moved = [tensor for name, tensor in state.items() if name.startswith(kind) and "lora_B" in name]
        assert moved
        assert all(tensor.abs().max() > 0 for tensor in moved)


def test_the_scored_adapter_is_the_average(whole: Path) -> None:
    state, _ = results(whole)
    saved = load_file(whole / "latest" / WEIGHTS_NAME)
    for name, tensor in saved.items():
        key = name.removeprefix("unet.").replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default.")
        assert torch.equal(tensor, state[f"ema/{key}"])


def test_a_checkpoint_that_is_damaged_or_foreign_is_refused_by_name(
    micro_config: Config, micro_precomputed: Precomputed, tmp_path: Path
) -> None:
    run(micro_config.with_values({"training.epochs": 1}), micro_precomputed, tmp_path)
    with pytest.raises(UserError, match=r"epoch_0001/state.safetensors: of a run with another base model or lora.rank"):
        run(micro_config.with_values({"lora.rank": 3}), micro_precomputed, tmp_path)
    (tmp_path / "latest" / "state.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(UserError, match=r"epoch_0001/state.safetensors: damaged"):
        run(micro_config, micro_precomputed, tmp_path)
    (tmp_path / "latest" / "run.json").write_text("{")
    with pytest.raises(UserError, match="not a checkpoint"):
        run(micro_config, micro_precomputed, tmp_path)


def test_a_run_that_was_killed_before_its_links_moved_does_it_again_and_trains_nothing_twice(
    micro_config: Config, micro_precomputed: Precomputed, whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    shutil.copytree(whole, output, symlinks=True)
    first = {path.name: path.read_bytes() for path in (whole / "latest").iterdir() if path.is_file()}
    link(output / "latest", "epoch_0002")
    (output / "best").unlink()
    (output / "history.json").write_text("[]")
    run(micro_config, micro_precomputed, output, until=1)
    assert (output / "latest").resolve().name == "epoch_0003"
    assert (output / "best").resolve().name == (whole / "best").resolve().name
    assert json.loads((output / "history.json").read_text()) == json.loads((whole / "history.json").read_text())
    assert {path.name: path.read_bytes() for path in (output / "latest").iterdir() if path.is_file()} == first


def test_without_its_last_checkpoint_a_run_goes_on_from_the_one_before(
    micro_config: Config, micro_precomputed: Precomputed, whole: Path, tmp_path: Path
) -> None:
    """The message of a damaged checkpoint advises this."""
    output = tmp_path / "run"
    shutil.copytree(whole, output, symlinks=True)
    shutil.rmtree(output / "epoch_0003")
    epochs: list[float] = []
    train(
        micro_config,
        precomputed=micro_precomputed.folder,
        output=output,
        context=DistributedContext.single(),
        report=lambda metrics, _: epochs.append(metrics["epoch"]),
    )
    assert epochs == [3.0]
    assert results(output)[1] == results(whole)[1]


def test_a_rank_that_sees_the_newest_checkpoint_late_waits_for_it(
    micro_config: Config, micro_precomputed: Precomputed, whole: Path, tmp_path: Path
) -> None:
    """On a shared file system other machines may see a rename later than the rank that did it."""
    output, hidden, sent = tmp_path / "run", tmp_path / "hidden", list[object]()
    shutil.copytree(whole, output, symlinks=True)

    class First(DistributedContext):
        def broadcast(self, value: Value) -> Value:
            sent.append(value)
            return value

    class Second(DistributedContext):
        def broadcast(self, value: Value) -> Value:
            received: Any = sent.pop(0)
            return cast(Value, received)

    alone = build_train_state(micro_config, micro_precomputed.folder, output, DistributedContext.single())
    progress = loop.resume(replace(alone, context=First(0, 2, alone.context.device)))
    expected = [parameter.detach().clone() for parameter in alone.parameters.values()]

    second = build_train_state(micro_config, micro_precomputed.folder, output, DistributedContext.single())
    (output / "epoch_0003").rename(hidden)
    timer = threading.Timer(0.5, hidden.rename, [output / "epoch_0003"])
    timer.start()
    assert loop.resume(replace(second, context=Second(1, 2, second.context.device))) == progress
    timer.join()
    assert all(torch.equal(a, b) for a, b in zip(expected, second.parameters.values(), strict=True))


def test_early_stopping_waits_for_patience_and_min_delta() -> None:
    early = {"training.early_stopping_patience": 2, "training.early_stopping_min_delta": 1.0}
    config = Config().with_values({**early, "metrics.objective": "fd_lite0"})
    scores = [10.0, 8.0, 7.5, 7.4]  # the last two are no improvement by more than 1
    history = [{"epoch": epoch + 1.0, "fd_lite0": score} for epoch, score in enumerate(scores)]
    assert not stopped_early(history[:3], config)
    assert stopped_early(history, config)
    assert not stopped_early(history, config.with_values({"training.early_stopping_patience": 0}))


def _rank(rank: int, config: Config, precomputed: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    seen: list[dict[str, float]] = []
    context = DistributedContext(rank, 2, torch.device("cpu"))
    train(config, precomputed=precomputed, output=folder / "run", context=context, report=lambda m, _: seen.append(m))
    (folder / f"rank_{rank}.json").write_text(json.dumps(seen))
    dist.destroy_process_group()


def test_two_workers_equal_one_with_the_same_global_batch(
    micro_config: Config, micro_precomputed: Precomputed, tmp_path: Path
) -> None:
    config = micro_config.with_values({"lora.dropout": 0.0, "training.epochs": 2})
    run(config.with_values({"training.batch_size": 8}), micro_precomputed, tmp_path / "one")
    halves = config.with_values({"training.batch_size": 4})
    arguments = (halves, micro_precomputed.folder, tmp_path)
    multiprocessing.start_processes(_rank, arguments, nprocs=2, start_method="spawn")  # type: ignore[no-untyped-call]

    ranks = [json.loads((tmp_path / f"rank_{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0] == ranks[1]  # all ranks report the same
    _, one = results(tmp_path / "one")
    _, two = results(tmp_path / "run")
    for alone, shared in zip(one, two, strict=True):
        assert alone == pytest.approx(shared, rel=2e-3)


def test_scores_do_not_depend_on_the_number_of_ranks_or_the_batch(
    micro_config: Config, micro_precomputed: Precomputed
) -> None:
    """A few pixels may differ by one grey level, by rounding."""
    unet = load_unet(micro_precomputed.base, dtype=torch.float32, device=torch.device("cpu"))
    vae = load_vae(micro_precomputed.base, device=torch.device("cpu"))
    seeds, embedder = image_seeds(6), embedders.make_embedder(micro_config, torch.device("cpu"))
    found = []
    for world_size, batch_size in ((1, 6), (1, 4), (2, 2)):
        sampler = validation_sampler(
            micro_config.with_values({"validation.batch_size": batch_size}), micro_precomputed.schedule
        )
        shares = [DistributedContext(rank, world_size, torch.device("cpu")).shard(6) for rank in range(world_size)]
        parts = [
            sample_images(unet, vae, micro_precomputed.prompt, seeds[own.start : own.stop], sampler) for own in shares
        ]
        found.append(epoch_metrics.score(torch.cat(parts), micro_precomputed.reference, embedder))
    for scores in found[1:]:
        assert scores == pytest.approx(found[0], rel=1e-3, abs=1e-6)


def test_a_run_goes_on_from_another_runs_checkpoint_with_its_history(
    micro_config: Config, micro_precomputed: Precomputed, whole: Path, tmp_path: Path
) -> None:
    shorter = tmp_path / "shorter"
    with pytest.raises(KeyboardInterrupt):
        run(micro_config, micro_precomputed, shorter, until=2)
    start_from((shorter / "latest").resolve(), tmp_path / "new")
    run(micro_config, micro_precomputed, tmp_path / "new")
    (state, scores), (new_state, new_scores) = results(whole), results(tmp_path / "new")
    assert new_scores == scores
    assert all(torch.equal(tensor, new_state[name]) for name, tensor in state.items())
    assert (tmp_path / "new" / "best").resolve().is_dir()
    with pytest.raises(UserError, match="has begun already"):
        start_from(shorter / "latest", tmp_path / "new")
    (shorter / "latest" / "state.safetensors").unlink()
    with pytest.raises(UserError, match=r"--resume: .* holds no state\.safetensors"):
        start_from(shorter / "latest", tmp_path / "newer")
