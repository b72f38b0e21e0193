"""Export and import of weights as a tar file, and members that are refused."""

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from families import build_family

from woundray.errors import UserError
from woundray.system.checksums import file_sha256
from woundray.weights.archive import export_archive, import_archive
from woundray.weights.base_models import staged_folder
from woundray.weights.feature_weights import WEIGHTS


def at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOUNDRAY_WEIGHTS", str(folder / "weights"))
    monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))
    monkeypatch.setenv("HF_HUB_CACHE", str(folder / "cache"))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with no weights."""
    at_home(tmp_path / "machine", monkeypatch)
    return tmp_path / "machine"


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_weights_come_whole_to_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_home(tmp_path / "here", monkeypatch)
    folder = tmp_path / "here/weights/sdxl"
    build_family("sdxl", folder)
    sent = files_of(folder)
    (folder / "unet/diffusion_pytorch_model.bin").write_bytes(b"a pickle that nobody opens")
    assert export_archive([], tmp_path / "out/weights.tar") == ["sdxl"]
    at_home(tmp_path / "there", monkeypatch)
    assert staged_folder("sdxl") is None
    assert import_archive(tmp_path / "out/weights.tar") == ["sdxl"]
    assert staged_folder("sdxl") == tmp_path / "there/weights/sdxl"
    assert files_of(tmp_path / "there") == {f"weights/sdxl/{path}": content for path, content in sent.items()}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["weights.tar"]


def test_only_what_is_here_and_right_is_exported(machine: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no weights in .*fetch sd21"):
        export_archive([], tmp_path / "weights.tar")
    with pytest.raises(UserError, match=r"sd21 is not on this machine; run .*fetch sd21"):
        export_archive(["sd21"], tmp_path / "weights.tar")
    path = machine / "torch/hub/checkpoints" / WEIGHTS["alexnet"].file_name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"other")
    with pytest.raises(UserError, match=r"is missing or damaged; run .*fetch alexnet"):
        export_archive(["lpips"], tmp_path / "weights.tar")
    folder = machine / "weights/sd15"
    build_family("sd15", folder)
    (folder / "staged.json").write_text('{"sha256": {"model_index.json": "00"}}')
    with pytest.raises(UserError, match=r"model_index\.json is damaged; run .*fetch sd15"):
        export_archive(["sd15"], tmp_path / "weights.tar")


def archive_of(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], sums: dict[str, bytes] | None = None) -> Path:
    """A tar file whose list of hashes is right for its members, or for `sums`."""
    listed = sums if sums is not None else {member.name: content for member, content in members}
    text = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in listed.items()).encode()
    with tarfile.open(path, "w") as archive:
        for member, content in [(tarfile.TarInfo("SHA256SUMS"), text), *members]:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (member("base/sd21/../../../outside.json"), "is no known file"),
        (member("../outside.json"), "is no known file"),
        (member("/outside.json"), "is no known file"),
        (member("base/sd21/unet/../../../x/config.json"), "is no known file"),
        (member("base/other/model_index.json"), "is no known file"),
        (member("base/sd21/unet/diffusion_pytorch_model.bin"), "is no known file"),
        (member("base/sd21/run.py"), "is no known file"),
        (member(f"checkpoints/{WEIGHTS['inception'].file_name}"), "is no known file"),  # of another hash
        (member("checkpoints/other.pth"), "is no known file"),
        (member("base/sd21/model_index.json", tarfile.SYMTYPE, "/etc/passwd"), "is no plain file"),
        (member("base/sd21/model_index.json", tarfile.LNKTYPE, "SHA256SUMS"), "is no plain file"),
        (member("base/sd21/unet", tarfile.DIRTYPE), "is no plain file"),
        (member("base/sd21/model_index.json", tarfile.FIFOTYPE), "is no plain file"),
    ],
)
def test_what_has_no_business_there_is_refused(
    machine: Path, tmp_path: Path, info: tarfile.TarInfo, message: str
) -> None:
    content = b"{}" if info.isreg() else b""
    good = (member("base/sd21/vae/config.json"), b"{}")
    path = archive_of(tmp_path / "weights.tar", [good, (info, content)])
    with pytest.raises(UserError, match=message):
        import_archive(path)
    assert files_of(machine) == {}
    assert not (tmp_path / "outside.json").exists()


def test_damage_is_refused_and_leaves_what_was_there(machine: Path, tmp_path: Path) -> None:
    path, name = tmp_path / "weights.tar", "base/sd21/model_index.json"
    old = machine / "weights/sd21/model_index.json"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")

    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message):
            import_archive(path)
        assert files_of(machine) == {"weights/sd21/model_index.json": b"old"}

    refused("not an archive of weights")  # missing
    archive_of(path, [(member(name), b"new")], sums={name: b"else"})
    refused("has another sha256")
    archive_of(path, [(member(name), b"new")], sums={})
    refused("is not in SHA256SUMS")
    archive_of(path, [(member(name), b"new")], sums={name: b"new", "base/sd21/vae/config.json": b"{}"})
    refused("1 of 2 files are missing")
    archive_of(path, [(member(name), b"new"), (member(name), b"new")])
    refused("comes twice")
    with tarfile.open(path, "w") as archive:
        archive.addfile(member(name), io.BytesIO(b""))
    refused("does not begin with SHA256SUMS")
    archive_of(path, [(member(name), b"new" * 1000)])
    path.write_bytes(path.read_bytes()[:2000])
    refused("weights.tar: ")
    path.write_bytes(b"no archive")
    refused("not an archive of weights")

    archive_of(path, [(member(name), b"new")])
    import_archive(path)
    assert file_sha256(old) == hashlib.sha256(b"new").hexdigest()
