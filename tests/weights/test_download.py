"""Downloads from a local server: resumed, checked, refused."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import Site, serve

from woundray.errors import UserError
from woundray.weights.download import download

CONTENT = bytes(range(256)) * 8000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def site() -> Iterator[Site]:
    with serve() as site:
        site.files["/net.pth"] = CONTENT
        yield site


def test_a_broken_download_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    file, url = tmp_path / "hub/net.pth", f"{site.url}/net.pth"
    site.breaks["/net.pth"] = 700_000
    with pytest.raises(UserError, match=r"net\.pth: broke off .* go on after 0\.7 MB"):
        download(url, file, SHA256)
    assert not file.exists()

    reported: list[tuple[int, int]] = []
    download(url, file, SHA256, progress=lambda _, done, total: reported.append((done, total)))
    assert file.read_bytes() == CONTENT
    assert site.asked[-1] == ("GET", "/net.pth", "bytes=700000-")
    assert reported[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in file.parent.iterdir()] == ["net.pth"]

    download(url, file, SHA256)
    assert len(site.asked) == 2  # what is here and right is not asked for


def test_a_server_without_ranges_gives_all_of_it_again(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    (tmp_path / ".net.pth.part").write_bytes(CONTENT[:1000])
    download(f"{site.url}/net.pth", tmp_path / "net.pth", SHA256)
    assert (tmp_path / "net.pth").read_bytes() == CONTENT


def test_a_part_that_is_whole_already_takes_its_place(site: Site, tmp_path: Path) -> None:
    (tmp_path / ".net.pth.part").write_bytes(CONTENT)
    download(f"{site.url}/net.pth", tmp_path / "net.pth", SHA256)
    assert (tmp_path / "net.pth").read_bytes() == CONTENT


def test_another_file_is_refused_and_leaves_nothing(site: Site, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"another file than is known: its sha256 is"):
        download(f"{site.url}/net.pth", tmp_path / "net.pth", "0" * 64)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".net.pth.part").write_bytes(b"x" * 1000)  # the start of another version
    with pytest.raises(UserError, match="run it again"):
        download(f"{site.url}/net.pth", tmp_path / "net.pth", SHA256)
    download(f"{site.url}/net.pth", tmp_path / "net.pth", SHA256)
    assert (tmp_path / "net.pth").read_bytes() == CONTENT


def test_a_damaged_file_is_replaced(site: Site, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(CONTENT[:-1])
    download(f"{site.url}/net.pth", tmp_path / "net.pth", SHA256)
    assert (tmp_path / "net.pth").read_bytes() == CONTENT


def test_no_answer_is_told_with_the_mend(site: Site, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.pth: answered 404 .*; put the file in .*net\.pth by hand"):
        download(f"{site.url}/none.pth", tmp_path / "net.pth", SHA256)
    with serve() as gone:
        pass
    with pytest.raises(UserError, match=r"broke off .*refused.*run it again"):
        download(f"{gone.url}/net.pth", tmp_path / "net.pth", SHA256)


def test_the_token_goes_to_its_host_and_not_to_where_that_redirects(site: Site, tmp_path: Path) -> None:
    site.redirects["/moved.pth"] = "/net.pth"
    download(f"{site.url}/moved.pth", tmp_path / "net.pth", SHA256, token="secret")
    assert site.tokens == {"/moved.pth": "Bearer secret"}
