"""Files and folders are whole or absent, synced before they have their name, and as open as the umask says."""

from __future__ import annotations

import errno
import os
import pickle
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secli.datasets.store import Split, write_dataset
from secli.errors import InputError, SecliError
from secli.storage.disk_space import FullError, check_file, check_room, check_writable, size_text
from secli.storage.writing import (
    atomic_directory,
    atomic_path,
    atomic_set,
    replace_folder,
    write_bytes,
    write_text,
)
from tests.datasets.test_store import DESCRIPTION, some

Calls = list[tuple[str, str]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What is synced and what is renamed, in their order: the kind of call, and the last part of the path."""
    made: Calls = []
    fsync, rename, replace, names = os.fsync, Path.rename, Path.replace, dict[int, str]()
    opened = os.open

    def open_named(path: str, flags: int, *rest: int, **more: int) -> int:
        descriptor = opened(path, flags, *rest, **more)
        names[descriptor] = Path(path).name
        return descriptor

    def sync(descriptor: int) -> None:
        made.append(("sync", names[descriptor]))
        fsync(descriptor)

    def renamed(real: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def do(path: Path, target: Path) -> Path:
            made.append(("rename", Path(target).name))
            return real(path, target)

        return do

    monkeypatch.setattr(os, "open", open_named)
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "rename", renamed(rename))
    monkeypatch.setattr(Path, "replace", renamed(replace))
    return made


def test_a_file_is_synced_before_it_has_its_name_and_its_folder_after(tmp_path: Path, calls: Calls) -> None:
    write_text(tmp_path / "a.txt", "whole")
    kinds = [kind for kind, _ in calls]
    assert kinds == ["sync", "rename", "sync"]
    assert calls[0][1].startswith(".a.txt.")
    assert calls[1:] == [("rename", "a.txt"), ("sync", tmp_path.name)]


def test_folders_that_are_made_for_a_file_are_synced_into_those_above(tmp_path: Path, calls: Calls) -> None:
    write_text(tmp_path / "new" / "newer" / "a.txt", "whole")
    assert calls[:2] == [("sync", tmp_path.name), ("sync", "new")]
    assert calls[-1] == ("sync", "newer")


def test_every_file_of_a_dataset_is_synced_before_the_dataset_is_there(tmp_path: Path, calls: Calls) -> None:
    write_dataset(tmp_path / "r3", {"train": some(6, 3), "val": some(0, 3), "test": some(4, 3)}, DESCRIPTION)
    here = calls.index(("rename", "r3"))
    arrays = {
        f"{split}-{array}.npy"
        for split in ("train", "val", "test")
        for array in ("images", "labels", "factors")
    }
    synced = [name for kind, name in calls[:here] if kind == "sync"]
    assert arrays | {"manifest.json"} <= set(synced)
    assert any(name.startswith(".r3.") for name in synced), "the folder's own names"
    assert calls[here + 1] == ("sync", tmp_path.name)


def test_a_run_that_is_replaced_is_synced_on_both_sides_of_the_renames(tmp_path: Path, calls: Calls) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text(name)
    calls.clear()
    replace_folder(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old" / "record.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert [kind for kind, _ in calls] == ["sync", "sync", "rename", "rename", "sync"]
    assert [name for _, name in calls[:2]] == ["record.json", "new"]


def test_a_set_is_declared_by_one_rename_after_all_its_files_are_synced(tmp_path: Path, calls: Calls) -> None:
    (tmp_path / "m.json").write_text("old")
    calls.clear()
    with atomic_set(tmp_path, "m") as folder:
        for end in ("csv", "json", "png"):
            (folder / f"m.{end}").write_text("new")
        assert (tmp_path / "m.json").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.csv", "m.json", "m.png"]
    renames = [name for kind, name in calls if kind == "rename"]
    assert renames[0].endswith(".set")
    assert renames[1:] == ["m.csv", "m.png", "m.json"], "the record comes last"
    synced = [name for _, name in calls[: calls.index(("rename", renames[0]))]]
    assert {"m.csv", "m.json", "m.png"} <= set(synced)


def test_a_set_that_cannot_be_moved_is_refused_before_anything_is(tmp_path: Path) -> None:
    (tmp_path / "m.png").mkdir()
    (tmp_path / "m.csv").write_text("old")

    def write() -> None:
        with atomic_set(tmp_path, "m") as folder:
            for end in ("csv", "png"):
                (folder / f"m.{end}").write_text("new")

    with pytest.raises(IsADirectoryError, match=r"m\.png"):
        write()
    assert (tmp_path / "m.csv").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.csv", "m.png"]


def test_a_set_in_a_folder_that_is_not_there_brings_the_folder(tmp_path: Path) -> None:
    with atomic_set(tmp_path / "report", "report") as folder:
        (folder / "report.md").write_text("text")
        assert not (tmp_path / "report").exists()
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["report.md"]


def test_folders_made_for_what_fails_are_removed_but_not_those_of_others(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()

    def fail() -> None:
        with atomic_directory(tmp_path / "there" / "a" / "b") as temporary:
            (temporary / "file").write_text("half")
            raise ValueError("bad picture")

    with pytest.raises(ValueError, match="bad picture"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert list((tmp_path / "there").iterdir()) == []


@pytest.fixture(params=[0o002, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield int(request.param)
    os.umask(before)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_files_and_folders_follow_the_umask(tmp_path: Path, umask: int) -> None:
    from secli.records.schema import RECORD_FILE
    from secli.sweeps.ray.packing import pack, unpack

    write_text(tmp_path / "new" / "a.txt", "text")
    with atomic_directory(tmp_path / "set") as temporary:
        (temporary / "b").write_text("b")
    (tmp_path / "run" / "state").mkdir(parents=True)
    (tmp_path / "run" / RECORD_FILE).write_text("{}")
    (tmp_path / "run" / "state" / "last.pt").write_text("state")
    unpack(pack(tmp_path / "run"), tmp_path / "home")
    unpack(pack(tmp_path / "run"), tmp_path / "home")  # once more, over what is there
    for path in (
        *(tmp_path / "new").rglob("*"),
        *(tmp_path / "set").rglob("*"),
        *(tmp_path / "home").rglob("*"),
    ):
        usual = 0o777 if path.is_dir() else 0o666
        assert stat.S_IMODE(path.stat().st_mode) == usual & ~umask, path
    assert stat.S_IMODE((tmp_path / "set").stat().st_mode) == 0o777 & ~umask


# ---- no room


def full(number: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left on device"),
        (errno.EDQUOT, "disk quota exceeded"),
        (errno.EFBIG, "file too large"),
    ],
)
def test_no_room_names_the_file_and_what_was_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    (tmp_path / "a").write_text("old")
    monkeypatch.setattr(Path, "write_bytes", full(number))
    with pytest.raises(FullError) as caught:
        write_bytes(tmp_path / "a", b"x" * 5000)
    assert str(caught.value).startswith(f"{tmp_path / 'a'}: {words}: 4.9 KiB are needed")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, SecliError)
    assert caught.value.exit_code == 1
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_short_write_of_numpy_is_no_room_too(tmp_path: Path) -> None:
    with pytest.raises(FullError, match=r"r0: no space left on device"), atomic_directory(tmp_path / "r0"):
        raise OSError("100 requested and 12 written")


def test_an_error_in_a_staged_folder_names_the_file_where_it_shall_be(tmp_path: Path) -> None:
    tmp_path.joinpath("out").mkdir()
    with pytest.raises(FullError) as caught, atomic_set(tmp_path / "out", "m") as folder:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "m.png"))
    assert str(caught.value).startswith(f"{tmp_path / 'out' / 'm.png'}: no space left")
    with pytest.raises(FileNotFoundError, match="elsewhere"), atomic_set(tmp_path / "out", "m"):
        Path("elsewhere").read_text()


def test_a_dataset_is_written_past_numpys_own_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a true file numpy writes through C, where a full disk has no error number."""
    seen: list[type] = []
    save = np.save

    def watch(file: Any, array: np.ndarray) -> None:
        seen.append(type(file))
        save(file, array)

    monkeypatch.setattr(np, "save", watch)
    splits: dict[str, Split] = {"train": some(6, 3), "val": some(0, 3), "test": some(4, 3)}
    write_dataset(tmp_path / "r3", splits, DESCRIPTION)  # type: ignore[arg-type]
    assert len(seen) == 9
    assert not any(hasattr(kind, "fileno") for kind in seen)
    np.testing.assert_array_equal(np.load(tmp_path / "r3" / "train-images.npy"), splits["train"].images)


def test_what_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "a.png").mkdir()
    with pytest.raises(InputError, match=r"--plot .*a\.png: is a directory"):
        check_file(tmp_path / "a.png", "--plot")
    with pytest.raises(InputError, match="file: is a file, not a directory"):
        check_file(tmp_path / "file" / "b.png")
    with pytest.raises(InputError, match="too long"):
        check_file(tmp_path / ("n" * 300))
    check_file(tmp_path / "new" / "b.png")
    assert not (tmp_path / "new").exists()
    with pytest.raises(FullError, match=r"r0: no space left on device: 1024\.0 TiB are needed"):
        check_room(tmp_path / "new" / "r0", 2**50)
    monkeypatch.setattr(Path, "write_bytes", full(errno.EROFS))
    with pytest.raises(InputError, match="cannot be written"):
        check_writable(tmp_path)
    monkeypatch.setattr(Path, "write_bytes", full(errno.ENOSPC))
    with pytest.raises(FullError, match="no space left"):
        check_writable(tmp_path)


def test_a_file_larger_than_the_limit_of_the_process_is_refused_before_the_work(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        with pytest.raises(FullError, match=r"file too large: 2\.0 MiB are needed, 1\.0 MiB are allowed"):
            check_room(tmp_path / "r0", 3 * 2**20, largest=2 * 2**20)
        check_room(tmp_path / "r0", 3 * 2**20, largest=2**20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_sizes_in_words() -> None:
    assert [size_text(count) for count in (0, 1023, 1024, 2**40)] == [
        "0 bytes",
        "1023 bytes",
        "1.0 KiB",
        "1.0 TiB",
    ]


def test_a_name_of_the_greatest_length_can_be_written(tmp_path: Path) -> None:
    name = "ü" * 125 + ".html"
    with atomic_path(tmp_path / name) as temporary:
        temporary.write_text("x")
    assert (tmp_path / name).read_text() == "x"
