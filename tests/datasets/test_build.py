from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from secli.datasets import build, workers
from secli.datasets.build import make_dataset, verify_dataset
from secli.datasets.export import class_folder_names, export_png
from secli.datasets.protocols import DATASETS
from secli.datasets.published_rescaling import rescale_as_published
from secli.datasets.store import open_dataset, write_dataset
from secli.datasets.transforms import TRANSFORMS
from secli.errors import InputError, SecliError
from secli.registry import Registry
from secli.sources.contract import RawImages, Request
from secli.storage.disk_space import check_writable

RawMaker = Callable[..., RawImages]
SMALL = (50, 20, 60)

SCALE = TRANSFORMS["scale"].function


def test_digits_need_nothing(tmp_path: Path) -> None:
    (result,) = make_dataset("digits-scale", tmp_path, [0], offline=True)
    assert result.made
    assert result.path == tmp_path / "digits-scale" / "r0"
    dataset = verify_dataset(result.path)
    train = dataset.split("train")
    assert train.images.shape == (1000, 28, 28)
    assert dataset.manifest.sizes == {"train": 1000, "val": 200, "test": 597}
    assert train.factors.min() >= np.float32(0.3)
    assert train.factors.max() <= 1
    # a shrunk picture leaves a black frame
    shrunk = train.images[train.factors < 0.5]
    assert shrunk[:, :6].max() == 0
    assert shrunk[:, 8:20, 8:20].max() == 255


def test_unscaled_has_the_same_splits(tmp_path: Path) -> None:
    (scaled,) = make_dataset("digits-scale", tmp_path, [2])
    (plain,) = make_dataset("digits", tmp_path, [2])
    scale_set, plain_set = open_dataset(scaled.path), open_dataset(plain.path)
    assert scale_set.scaled
    assert not plain_set.scaled
    for name in ("train", "val", "test"):
        ours, theirs = scale_set.split(name), plain_set.split(name)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        assert (theirs.factors == 1).all()
        index = int(ours.factors.argmin())
        # the stored factors are rounded to float32: the pixels agree to a grey value
        again = rescale_as_published(
            theirs.images[index : index + 1], ours.factors[index : index + 1].astype(np.float64)
        )
        assert np.abs(again.astype(int) - ours.images[index : index + 1]).max() <= 1


def test_a_second_call_finds_it_complete(tmp_path: Path) -> None:
    first = make_dataset("digits", tmp_path, [0, 1], sizes=SMALL)
    before = {path: path.stat().st_mtime_ns for path in first[0].path.iterdir()}
    again = make_dataset("digits", tmp_path, [1, 0, 2], sizes=SMALL)
    assert [result.made for result in again] == [False, False, True]
    assert [result.path.name for result in again] == ["r1", "r0", "r2"]
    assert before == {path: path.stat().st_mtime_ns for path in first[0].path.iterdir()}


def test_realisations_differ_and_repeat(tmp_path: Path) -> None:
    first = make_dataset("digits-scale", tmp_path / "a", [0, 1], sizes=SMALL)
    again = make_dataset("digits-scale", tmp_path / "b", [1], sizes=SMALL)
    assert open_dataset(first[1].path).digest == open_dataset(again[0].path).digest
    assert open_dataset(first[0].path).digest != open_dataset(again[0].path).digest


def test_workers_make_the_same_images(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    alone = make_dataset("digits-scale", tmp_path / "a", [0], jobs=1)
    together = make_dataset(
        "digits-scale", tmp_path / "b", [0], jobs=2, on_progress=lambda *now: seen.append(now)
    )
    assert open_dataset(alone[0].path).digest == open_dataset(together[0].path).digest
    assert seen[-1] == (1797, 1797)
    assert seen == sorted(seen)


def test_other_parameters_have_their_own_folder(tmp_path: Path) -> None:
    (standard,) = make_dataset("digits-scale", tmp_path, [0])
    (other,) = make_dataset("digits-scale", tmp_path, [0], factors=(0.5, 0.5), sizes=SMALL)
    assert other.path.parent.name.startswith("digits-scale-")
    dataset = open_dataset(other.path)
    assert dataset.name == other.path.parent.name
    assert dataset.manifest.parameters == {"factors": [0.5, 0.5], "sizes": [50, 20, 60], "image_size": 28}
    assert (dataset.split("test").factors == 0.5).all()
    (same,) = make_dataset("digits-scale", tmp_path, [0], factors=(0.3, 1.0))
    assert same.path == standard.path
    (bigger,) = make_dataset("digits-scale", tmp_path, [0], sizes=SMALL, image_size=40)
    assert open_dataset(bigger.path).image_size == (40, 40)


def test_a_damaged_one_is_refused_not_rebuilt(tmp_path: Path) -> None:
    (result,) = make_dataset("digits", tmp_path, [0], sizes=SMALL)
    file = result.path / "test-images.npy"
    file.write_bytes(file.read_bytes()[:-10])
    size = file.stat().st_size
    with pytest.raises(InputError, match=r"test-images\.npy: damaged"):
        make_dataset("digits", tmp_path, [0, 1], sizes=SMALL)
    assert file.stat().st_size == size
    assert not (result.path.parent / "r1").exists()


def test_another_set_in_its_place_is_refused(tmp_path: Path) -> None:
    (result,) = make_dataset("digits", tmp_path, [0], sizes=SMALL)
    result.path.rename(result.path.parent / "r1")
    with pytest.raises(InputError, match=r"r1: holds .* r0 with .*not what its path says"):
        make_dataset("digits", tmp_path, [1], sizes=SMALL)


def test_images_that_are_not_the_published_ones_are_refused(
    tmp_path: Path, raw_images: RawMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(DATASETS["mnist-scale"], sizes=SMALL)
    monkeypatch.setattr(build, "DATASETS", Registry("dataset", [small]))
    monkeypatch.setattr(build, "read_source", lambda *_: raw_images(200))
    with pytest.raises(SecliError, match="mnist-scale r0: split 'train' is not the published one"):
        make_dataset("mnist-scale", tmp_path, [0], jobs=1)
    assert list((tmp_path / "mnist-scale").iterdir() if (tmp_path / "mnist-scale").exists() else []) == []
    # no digests are published of realisation 6; on disk the standard ones are checked again
    (six,) = make_dataset("mnist-scale", tmp_path, [6], jobs=1)
    verify_dataset(six.path)
    moved = six.path.parent / "r0"
    six.path.rename(moved)
    manifest = moved / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"realisation": 6', '"realisation": 0'))
    with pytest.raises(InputError, match=r"r0/train-images\.npy: not the published images of mnist-scale r0"):
        verify_dataset(moved)


def test_folders_of_ones_own(tmp_path: Path, class_folders: Path) -> None:
    (result,) = make_dataset("folder-scale", tmp_path / "out", [0], source=class_folders)
    dataset = open_dataset(result.path)
    assert dataset.classes == ("cat", "dog")
    assert dataset.image_size == (12, 16)
    assert dataset.manifest.sizes == {"train": 12, "val": 2, "test": 6}
    assert dataset.channels == 1
    assert not dataset.lossy
    (plain,) = make_dataset("folder", tmp_path / "out", [0], source=class_folders)
    assert (open_dataset(plain.path).split("train").factors == 1).all()
    assert not make_dataset("folder-scale", tmp_path / "out", [0], source=class_folders)[0].made
    Image.new("L", (16, 12)).save(class_folders / "cat" / "0.png")
    (other,) = make_dataset("folder-scale", tmp_path / "out", [0], source=class_folders)
    assert other.path.parent != result.path.parent, "other pictures must not share a name"


def test_jpegs_are_lossy(tmp_path: Path, class_folders: Path) -> None:
    Image.new("RGB", (16, 12), (9, 99, 199)).save(class_folders / "cat" / "x.jpg")
    (result,) = make_dataset("folder", tmp_path / "out", [0], source=class_folders)
    dataset = open_dataset(result.path)
    assert dataset.lossy
    assert dataset.info().lossy
    assert dataset.channels == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"realisations": [-1]}, "--realisations: -1 is not between 0"),
        ({"realisations": [2**32]}, "is not between 0"),
        ({"realisations": [1, 1]}, "given twice"),
        ({"realisations": []}, "at least one"),
        ({"jobs": 0}, "--jobs 0"),
        ({"sizes": (2000, 10, 10)}, "source 'digits' has 1797"),
        ({"name": "digit-scale"}, "unknown dataset 'digit-scale'; did you mean 'digits-scale'"),
    ],
)
def test_bad_arguments(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_dataset(**{"name": "digits-scale", "out": tmp_path / "out", **arguments})  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_unwritable_places_are_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: is a file, not a directory"):
        make_dataset("digits", tmp_path / "file" / "out", [0])
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="this directory cannot be written"):
        check_writable(tmp_path / "new" / "out")


def test_of_two_that_need_one_dataset_the_second_waits_verifies_and_uses_it(tmp_path: Path) -> None:
    """The first one is another process, which begins as soon as this one has it wait."""
    pytest.importorskip("fcntl")
    code = (
        "import sys; from pathlib import Path; from secli.datasets.build import make_dataset\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        f"(made,) = make_dataset('digits', Path({str(tmp_path)!r}), sizes={SMALL}, jobs=1, "
        "on_wait=lambda folder: print('waits', flush=True))\n"
        "print(made.made, flush=True)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdin is not None
    assert other.stdout is not None
    said: list[str] = []

    def let_the_other_come(done: int, total: int) -> None:
        if not said:
            assert other.stdin is not None
            assert other.stdout is not None
            other.stdin.write("go\n")
            other.stdin.flush()
            said.extend((other.stdout.readline(), other.stdout.readline()))

    (mine,) = make_dataset("digits", tmp_path, sizes=SMALL, jobs=1, on_progress=let_the_other_come)
    out, _ = other.communicate(timeout=60)
    assert said == ["ready\n", "waits\n"]
    assert (mine.made, out) == (True, "False\n")
    assert [path.name for path in mine.path.parent.iterdir()] == ["r0"]


def test_what_another_process_has_made_meanwhile_is_used_where_there_are_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, made = write_dataset, list[Path]()

    def overtaken(path: Path, *rest: Any) -> None:
        write(path, *rest)
        made.append(path)
        write(path, *rest)

    monkeypatch.setattr(build, "write_dataset", overtaken)
    (result,) = make_dataset("digits", tmp_path, sizes=SMALL, jobs=1)
    assert (made, result.made) == ([result.path], False)


def test_a_dataset_without_room_is_refused_before_an_image_is_rescaled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rescaled(*_: object) -> None:
        raise AssertionError("rescaled")

    monkeypatch.setattr(build, "_rescaled", rescaled)
    monkeypatch.setattr("secli.storage.disk_space._free", lambda path: 1000)
    with pytest.raises(SecliError, match=r"r0: no space left on device: .* needed, 1000 bytes are free"):
        make_dataset("digits-scale", tmp_path, sizes=SMALL)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[workers.Workers] = []

    class Watched(workers.Workers):
        def __init__(self, count: int) -> None:
            super().__init__(count)
            started.append(self)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(workers, "Workers", Watched)
    with pytest.raises(KeyboardInterrupt):
        make_dataset("digits-scale", tmp_path, [0, 1, 2], jobs=2, on_progress=interrupt)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    (pool,) = started
    assert all(process.poll() is not None for process in pool._processes)


def test_a_dead_worker_is_one_line(raw_images: RawMaker) -> None:
    images = raw_images(10).images
    with workers.workers(2) as pool:
        assert isinstance(pool, workers.Workers)
        np.testing.assert_array_equal(
            pool.transform(SCALE, images, np.full(10, 0.5)).result(),
            rescale_as_published(images, np.full(10, 0.5)),
        )
        for process in pool._processes:
            process.send_signal(signal.SIGKILL)
        with pytest.raises(SecliError, match="a worker process died: signal 9; try --jobs 1"):
            pool.transform(SCALE, images, np.full(10, 0.5)).result()


def test_a_workers_last_words_are_passed_on(raw_images: RawMaker) -> None:
    with (
        workers.workers(2) as pool,
        pytest.raises(SecliError, match=r"a worker process died: .*Error.*; try --jobs 1"),
    ):
        pool.transform(SCALE, raw_images(3).images, np.array([0.5, 0.0, 0.5])).result()  # 1/0


def test_png_tree_is_read_by_torchvision(tmp_path: Path, class_folders: Path) -> None:
    from torchvision.datasets import ImageFolder

    (result,) = make_dataset("folder-scale", tmp_path / "out", [0], source=class_folders)
    dataset = open_dataset(result.path)
    tree = export_png(dataset, tmp_path / "png")
    assert tree == tmp_path / "png" / dataset.name / "r0"
    for name in ("train", "val", "test"):
        split = dataset.split(name)
        folder = ImageFolder(str(tree / name))
        assert folder.classes == list(dataset.classes)
        assert len(folder) == len(split)
        for path, label in folder.samples:
            index = int(Path(path).stem)
            assert split.labels[index] == label
            np.testing.assert_array_equal(np.asarray(Image.open(path)), split.images[index])
    before = sorted(tree.rglob("*"))
    with pytest.raises(InputError, match=r"--export-png .*/r0 already exists"):
        export_png(dataset, tmp_path / "png")
    assert sorted(tree.rglob("*")) == before


def test_an_interrupted_export_leaves_nothing(tmp_path: Path) -> None:
    (result,) = make_dataset("digits", tmp_path / "out", [0])

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_png(open_dataset(result.path), tmp_path / "png", interrupt)
    assert not (tmp_path / "png").exists()


def test_class_folders_keep_the_labels_in_order() -> None:
    assert class_folder_names(("airplane", "bird")) == ("airplane", "bird")
    many = class_folder_names(tuple("kjihgfedcba"))
    assert many[0] == "00-k"
    assert list(many) == sorted(many)


def test_a_request_reaches_the_source(
    tmp_path: Path, raw_images: RawMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Request] = []

    def read(name: str, request: Request) -> RawImages:
        seen.append(request)
        return raw_images(200)

    monkeypatch.setattr(build, "read_source", read)
    make_dataset(
        "mnist", tmp_path, [0, 1], tmp_path, offline=True, sizes=SMALL, image_size=20, show_download=True
    )
    assert seen == [Request(tmp_path, True, 20, True)], "the source is read once"
