from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from secli.errors import SecliError
from secli.sources import mnist
from secli.sources.contract import Request
from secli.sources.registry import read_source

Files = dict[str, bytes]
Write = Callable[[Path, Files], Path]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Serve a directory on the loopback interface."""
    directory = tmp_path / "served"
    directory.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", directory
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def mirrored(
    served: tuple[str, Path], small_mnist: Files, write: Write, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Path]:
    """Let torchvision find MNIST on the local server."""
    from torchvision.datasets import MNIST

    url, directory = served
    write(directory, {f"{name}.gz": content for name, content in small_mnist.items()})
    resources = [
        (f"{name}.gz", hashlib.md5((directory / f"{name}.gz").read_bytes()).hexdigest())
        for name in small_mnist
    ]
    monkeypatch.setattr(MNIST, "resources", resources)
    monkeypatch.setattr(MNIST, "mirrors", [f"{url}no-such-mirror/", url])
    return url, directory


def test_downloads_into_the_cache_once(
    mirrored: tuple[str, Path], cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    raw = read_source("mnist", Request())
    assert len(raw.labels) == 40
    assert sorted(path.name for path in (cache / "mnist").iterdir()) == sorted(
        f"{name}.gz" for name in mnist.MNIST_MD5
    )
    assert capfd.readouterr() == ("", "")
    assert len(read_source("mnist", Request(offline=True)).labels) == 40


def test_progress_goes_to_stderr(mirrored: tuple[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    read_source("mnist", Request(show_progress=True))
    out, err = capfd.readouterr()
    assert out == ""
    assert "%" in err


def test_only_what_is_missing_is_downloaded(
    mirrored: tuple[str, Path], cache: Path, small_mnist: Files, write: Write
) -> None:
    here = dict(small_mnist)
    here.pop(mnist.TEST_LABELS)
    write(cache / "mnist" / "MNIST" / "raw", here)
    (mirrored[1] / f"{mnist.TRAIN_IMAGES}.gz").unlink()
    assert len(read_source("mnist", Request()).labels) == 40
    assert (cache / "mnist" / "MNIST" / "raw" / f"{mnist.TEST_LABELS}.gz").is_file()


@pytest.mark.parametrize("fault", ["gone", "cut off"])
def test_a_failed_download_says_what_to_do(mirrored: tuple[str, Path], cache: Path, fault: str) -> None:
    url, directory = mirrored
    victim = directory / f"{mnist.TRAIN_IMAGES}.gz"
    md5 = hashlib.md5(victim.read_bytes()).hexdigest()
    if fault == "gone":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:300])
    with pytest.raises(SecliError) as caught:
        read_source("mnist", Request())
    message = str(caught.value)
    assert caught.value.exit_code == 1
    assert "\n" not in message
    assert f"cannot download {victim.name} from {url}no-such-mirror/{victim.name} (HTTP Error 404" in message
    assert ("404" in message.split(victim.name)[3]) == (fault == "gone")
    assert ("cut off, or with another checksum" in message) == (fault == "cut off")
    assert f"put that file (md5 {md5}) into {cache / 'mnist'}" in message
    assert not (cache / "mnist").exists()


def test_no_server_at_all(small_mnist: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(SecliError, match=r"127\.0\.0\.1:9/train-images-idx3-ubyte\.gz \(.*refused"):
        read_source("mnist", Request())


def test_archives_are_unpacked_and_not_kept(
    served: tuple[str, Path],
    cifar_files: Files,
    pack: Callable[[Path, Files], Path],
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torchvision.datasets import CIFAR10

    url, directory = served
    archive = pack(directory / CIFAR10.filename, cifar_files)
    monkeypatch.setattr(CIFAR10, "url", f"{url}{CIFAR10.filename}")
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    assert len(read_source("cifar10", Request()).labels) == 24
    assert sorted(path.name for path in (cache / "cifar10").iterdir()) == sorted(cifar_files)
    archive.unlink()
    assert len(read_source("cifar10", Request()).labels) == 24


def test_every_published_file_goes_by_https_or_has_a_pinned_sha256() -> None:
    from torchvision.datasets import CIFAR10, STL10

    from secli.sources.checksums import SHA256
    from secli.sources.download import addresses
    from secli.sources.files import Download

    archives = [Download("a", (kind.url,), kind.tgz_md5) for kind in (CIFAR10, STL10)]
    for item in (*mnist._downloads("MNIST"), *mnist._downloads("FashionMNIST"), *archives):
        assert item.md5 in SHA256, item
        assert [url for url in addresses(item) if url.startswith("https://")] or item.md5 in SHA256
    unknown = Download("x", ("http://a.org/x", "ftp://b.org/x"), "0")
    assert addresses(unknown) == ("https://a.org/x", "ftp://b.org/x")
    assert addresses(Download("x", ("http://127.0.0.1:9/x",), "0")) == ("http://127.0.0.1:9/x",)


def test_a_file_with_the_right_md5_and_another_sha256_is_refused(
    mirrored: tuple[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from secli.sources.checksums import SHA256

    _, directory = mirrored
    for file in directory.iterdir():
        monkeypatch.setitem(SHA256, hashlib.md5(file.read_bytes()).hexdigest(), "0" * 64)
    with pytest.raises(SecliError, match="with another checksum"):
        read_source("mnist", Request())
    assert not (cache / "mnist").exists()
