"""Storage of studies: full, read-only, removed, a URL, or locked by another process."""

import errno
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from woundray.errors import UserError
from woundray.system.storage import MIN_FREE_BYTES, check_not_lost, check_storage, exclusive_lock, storage_loss


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_folder_that_can_be_written_is_made_and_left_empty(tmp_path: Path) -> None:
    check_storage(tmp_path / "new" / "runs")
    assert list((tmp_path / "new" / "runs").iterdir()) == []


@pytest.mark.parametrize("address", ["s3://bucket/runs", "gs://bucket/runs", "abfs://a@b.net/runs"])
def test_an_address_is_no_folder(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"is an address; mount"):
        check_storage(Path(address))
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("mine")
    with pytest.raises(UserError, match=r"runs can not be written"):
        check_storage(tmp_path / "runs")
    assert (tmp_path / "runs").read_text() == "mine"


def test_a_disk_with_little_room_is_refused_before_the_study(small_disk: Path) -> None:
    assert MIN_FREE_BYTES > 8 * 2**20
    with pytest.raises(UserError, match=r"has 8 MiB left; a study needs 256 MiB to start"):
        check_storage(small_disk / "runs")


def test_a_disk_that_fills_up_is_told_from_other_errors(small_disk: Path) -> None:
    check_not_lost(small_disk)
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "photographs").write_bytes(bytes(9 * 2**20))
    with pytest.raises(OSError, match="No space left") as full:
        check_not_lost(small_disk)
    wrapped = RuntimeError("of Ray")
    wrapped.__cause__ = full.value
    assert "No space left" in storage_loss(wrapped, small_disk)
    assert storage_loss(ValueError("another"), small_disk) == ""


def test_a_disk_that_became_read_only_is_named(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UserError, match=r"can not be written \(Read-only file system\)"):
        check_storage(small_disk)
    with pytest.raises(OSError, match="Read-only") as error:
        check_not_lost(small_disk)
    assert error.value.errno == errno.EROFS
    assert "Read-only" in storage_loss(error.value, small_disk)


def test_a_folder_that_was_removed_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        check_not_lost(tmp_path / "gone")
    assert storage_loss(None, tmp_path / "gone").endswith("the folder was removed")
    assert not (tmp_path / "gone").exists()


HOLDER = """
    import sys, time
    from pathlib import Path
    from woundray.system.storage import exclusive_lock
    with exclusive_lock(Path(sys.argv[1])):
        print("held", flush=True)
        time.sleep(600)
"""


def test_one_process_alone_works_in_a_study_and_its_lock_dies_with_it(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), str(tmp_path)], stdout=subprocess.PIPE, env=environment
    ) as other:
        assert other.stdout is not None
        try:
            assert other.stdout.readline() == b"held\n"
            with pytest.raises(UserError, match="another process works on this study"), exclusive_lock(tmp_path):
                raise AssertionError
        finally:
            other.kill()  # SIGKILL: nothing is cleaned up
    with exclusive_lock(tmp_path):
        pass
