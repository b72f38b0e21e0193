"""Shared file systems that show files late, and nodes that lack files."""

import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from woundray.errors import UserError
from woundray.ray_cluster import nodes
from woundray.ray_cluster.nodes import check_model, check_shared
from woundray.system import shared_files
from woundray.system.checksums import fingerprint
from woundray.system.shared_files import wait_until_visible

SHOWN_AFTER_S = 0.5


def show_later(hidden: Path, path: Path) -> threading.Timer:
    """Renames a file or folder into place after a while."""
    timer = threading.Timer(SHOWN_AFTER_S, hidden.rename, [path])
    timer.start()
    return timer


def test_a_file_is_waited_for_until_it_is_as_it_was_written(tmp_path: Path) -> None:
    path, hidden = tmp_path / "run.json", tmp_path / "hidden"
    path.write_text("an older one")
    hidden.write_text("the new one")
    timer = show_later(hidden, path)
    wait_until_visible(path, fingerprint(hidden))
    timer.join()
    assert path.read_text() == "the new one"


def test_a_file_that_never_comes_is_named_with_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_files, "VISIBLE_WITHIN_S", 0.0)
    with pytest.raises(UserError, match=r"run\.json: not seen on .* \(No such file or directory\); put study\.output"):
        wait_until_visible(tmp_path / "run.json", "12 ab")
    (tmp_path / "run.json").write_text("another")
    with pytest.raises(UserError, match="its content is another"):
        wait_until_visible(tmp_path / "run.json", "12 ab")


def test_a_fingerprint_tells_files_of_the_same_length_and_beginning_apart(tmp_path: Path) -> None:
    """A file of weights is written from its beginning to its end."""
    whole, half = tmp_path / "whole", tmp_path / "half"
    whole.write_bytes(b"x" * 3 * 2**20)
    half.write_bytes(b"x" * 2 * 2**20 + b"\0" * 2**20)
    assert fingerprint(whole) != fingerprint(half)


@pytest.fixture
def second_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Root of the files of a second node, which has nothing of what is in `tmp_path`/head."""
    root = tmp_path / "node"
    root.mkdir()

    def on_each(look: Callable[..., str], files: Mapping[str, str], wait_s: float) -> dict[str, str]:
        there = {path.replace(str(tmp_path / "head"), str(root)): print_ for path, print_ in files.items()}
        return {"10.0.0.1": look(files, wait_s), "10.0.0.2": look(there, wait_s)}

    monkeypatch.setattr(nodes, "_alive_nodes", lambda: [{}, {}])
    monkeypatch.setattr(nodes, "_run_on_each_node", on_each)
    return root


def test_a_node_without_the_base_model_is_named_before_a_trial_starts(
    micro_base: Path, tmp_path: Path, second_node: Path
) -> None:
    base = tmp_path / "head/sd21"
    shutil.copytree(micro_base, base)
    said = r"^model\.base: node 10\.0\.0\.2 lacks the model in .*head/sd21 \(.*json: No such file or directory\); copy"
    with pytest.raises(UserError, match=said):
        check_model(base)
    shutil.copytree(micro_base, second_node / "sd21")
    check_model(base)
    weights = second_node / "sd21/unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(UserError, match=r"unet/diffusion_pytorch_model\.safetensors: its content is another"):
        check_model(base)


def test_a_node_may_see_the_studys_folder_late_but_must_see_it(
    tmp_path: Path, second_node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = tmp_path / "head"
    head.mkdir()
    monkeypatch.setattr(nodes, "VISIBLE_WITHIN_S", 0.0)
    with pytest.raises(UserError, match=r"^study\.output: node 10\.0\.0\.2 does not see .*/head \(.*No such file"):
        check_shared(head)
    monkeypatch.setattr(nodes, "VISIBLE_WITHIN_S", 30.0)
    second_node.rmdir()
    (tmp_path / "later").symlink_to(head)
    timer = show_later(tmp_path / "later", second_node)
    check_shared(head)
    timer.join()
    assert not list(head.iterdir())
