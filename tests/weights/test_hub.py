"""Base models from a local model hub: selection of files, checks, and messages if there are none."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from families import build_family
from loopback import COMMIT, Site, serve

from woundray.errors import UserError
from woundray.system.checksums import file_sha256
from woundray.weights import diffusers_layout
from woundray.weights.base_models import base_model_folder, staged_folder
from woundray.weights.hub import fetch_base
from woundray.weights.repositories import REPOSITORIES

FIRST, SECOND = REPOSITORIES["sd21"].hub_ids
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A repository as they are: with second copies of the weights, pickles, and parts that nobody opens."""
    folder = tmp_path_factory.mktemp("hub") / "sd21"
    build_family("sd21", folder)
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    weights = [path for path in found if path.endswith(".safetensors")]
    for path in weights:
        stem = path.removesuffix(".safetensors")
        found |= {
            f"{stem}.fp16.safetensors": b"half",
            f"{stem}.bin": b"pickle",
            f"{stem}.non_ema.safetensors": b"other",
        }
    extra = ("v2-1_512-ema-pruned.ckpt", "v2-1_512-ema-pruned.safetensors", "README.md", "safety_checker/config.json")
    return found | dict.fromkeys(extra, b"{}")


@pytest.fixture
def site() -> Iterator[Site]:
    with serve() as site:
        yield site


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without weights."""
    monkeypatch.setenv("WOUNDRAY_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path / "weights"


def test_what_a_run_opens_is_fetched_once_with_its_hashes(site: Site, files: dict[str, bytes], home: Path) -> None:
    site.add_repository(FIRST, files)
    folder = fetch_base("sd21", endpoint=site.url)
    assert folder == home / "sd21" == staged_folder("sd21") == base_model_folder("sd21")
    here = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    here = {path for path in here if not path.startswith(".cache/")}
    wanted = {path for path in files if path.split("/")[0] not in ("safety_checker", "README.md")}
    wanted = {path for path in wanted if not path.endswith((".bin", ".ckpt")) and "." not in Path(path).stem}
    wanted -= {"v2-1_512-ema-pruned.safetensors"}
    assert here == wanted | {"staged.json"}

    facts = json.loads((folder / "staged.json").read_text())
    assert (facts["source"], facts["revision"]) == (FIRST, COMMIT)
    assert facts["licence"] == "CreativeML Open RAIL++-M"
    assert facts["sha256"] == {path: file_sha256(folder / path) for path in wanted}

    site.asked.clear()
    fetch_base("sd21", endpoint=site.url)
    assert site.asked == []


def test_the_pinned_commit_is_asked_for(site: Site, files: dict[str, bytes]) -> None:
    site.add_repository(FIRST, files)
    fetch_base("sd21", endpoint=site.url)
    commit = REPOSITORIES["sd21"].revisions[FIRST]
    assert any(path == f"/api/models/{FIRST}/revision/{commit}" for _, path, _ in site.asked)
    for repository in REPOSITORIES.values():
        assert set(repository.revisions) <= set(repository.hub_ids)
        assert all(len(digest) == 64 for digest in repository.sha256.values())


def test_half_precision_on_request(site: Site, files: dict[str, bytes]) -> None:
    site.add_repository(FIRST, files)
    folder = fetch_base("sd21", half=True, endpoint=site.url)
    assert diffusers_layout.weights_precision(folder, "unet") == "fp16"
    assert diffusers_layout.missing_files(folder) == []
    fetch_base("sd21", endpoint=site.url)  # and then in full
    assert diffusers_layout.weights_precision(folder, "unet") == "fp32"


def test_a_broken_fetch_goes_on_where_it_stopped(site: Site, files: dict[str, bytes]) -> None:
    site.add_repository(FIRST, files)
    path = f"/{FIRST}/resolve/{COMMIT}/{UNET}"
    site.breaks[path] = 1_500_000
    with pytest.raises(UserError, match=rf"{UNET}: broke off .* go on after 1\.5 MB"):
        fetch_base("sd21", endpoint=site.url)
    assert staged_folder("sd21") is None
    folder = fetch_base("sd21", endpoint=site.url)
    assert ("GET", path, "bytes=1500000-") in site.asked
    assert (folder / UNET).read_bytes() == files[UNET]


def test_a_damaged_file_alone_is_fetched_again(site: Site, files: dict[str, bytes]) -> None:
    site.add_repository(FIRST, files)
    folder = fetch_base("sd21", endpoint=site.url)
    (folder / UNET).write_bytes(files[UNET][:-1] + b"?")
    site.asked.clear()
    fetch_base("sd21", endpoint=site.url)
    assert (folder / UNET).read_bytes() == files[UNET]
    assert {path.rsplit("/", 1)[1] for path in site.fetched()} == {UNET.rsplit("/", 1)[1]}


def test_other_bytes_than_the_hub_declares_are_refused_and_deleted(site: Site, files: dict[str, bytes]) -> None:
    site.add_repository(FIRST, files, declared={UNET: "f" * 64})
    with pytest.raises(UserError, match=rf"{FIRST}.*{UNET}: another file than is known.* not ffffffffffff"):
        fetch_base("sd21", endpoint=site.url)
    assert staged_folder("sd21") is None


def test_the_second_repository_is_taken_where_the_first_is_gone(site: Site, files: dict[str, bytes]) -> None:
    site.errors[f"/api/models/{FIRST}/"] = (404, "RepoNotFound")
    site.add_repository(SECOND, files)
    folder = fetch_base("sd21", endpoint=site.url)
    assert json.loads((folder / "staged.json").read_text())["source"] == SECOND


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (404, "RepoNotFound", "is deleted or private"),
        (401, "RepoNotFound", "is deleted or private"),
        (403, "GatedRepo", "is gated"),
        (404, "RevisionNotFound", "lacks the revision"),
        (418, "", "answered 418"),
    ],
)
def test_each_repository_that_was_tried_is_named_with_its_reason(
    site: Site, files: dict[str, bytes], status: int, code: str, reason: str
) -> None:
    site.errors[f"/api/models/{FIRST}/"] = (status, code)
    incomplete = {path: content for path, content in files.items() if not path.startswith("vae/")}
    site.add_repository(SECOND, incomplete)
    with pytest.raises(UserError) as caught:
        fetch_base("sd21", endpoint=site.url)
    message = str(caught.value)
    assert f"{FIRST} {reason}" in message
    assert f"{SECOND} has no vae/config.json" in message
    assert "python -m woundray.fetch sd21" in message
    assert "\n" not in message


def test_an_unreachable_hub_is_said_to_be_so() -> None:
    with serve() as site:
        url = site.url  # and nobody listens there any more
    with pytest.raises(UserError, match=rf"{FIRST} is unreachable \(ConnectError\); {SECOND} is unreachable"):
        fetch_base("sd21", endpoint=url)


def test_offline_nothing_is_asked(site: Site, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    site.add_repository(FIRST, files)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE is set, so no repository was tried; run .*fetch sd21"):
        fetch_base("sd21", endpoint=site.url)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        base_model_folder("sd21")
    assert site.asked == []


def test_a_whole_folder_wins_over_the_hubs_cache_and_a_part_of_one_does_not(home: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / f"cache/models--{FIRST.replace('/', '--')}/snapshots/{COMMIT}"
    build_family("sd21", snapshot)
    assert base_model_folder("sd21") == snapshot
    build_family("sd21", home / "sd21")
    assert base_model_folder("sd21") == home / "sd21"
    (home / "sd21/vae/diffusion_pytorch_model.safetensors").unlink()
    assert base_model_folder("sd21") == snapshot
    (snapshot / "tokenizer/vocab.json").unlink()
    (snapshot / "scheduler/scheduler_config.json").unlink()
    assert staged_folder("sd21") is None


def test_another_model_under_a_short_name_is_refused(home: Path) -> None:
    build_family("sd21-v", home / "sd21")
    with pytest.raises(UserError, match=r"sd21 predicts v_prediction, but sd21 predicts epsilon"):
        base_model_folder("sd21")
