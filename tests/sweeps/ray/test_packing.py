"""Packed directories: what goes in comes out, nothing gets outside, and a run is whole at every moment."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secli.errors import InputError
from secli.sweeps.ray.packing import extract, pack, unpack

names = st.text("abcdeäß 1", min_size=1, max_size=8).map(str.strip).filter(bool)
trees = st.dictionaries(st.tuples(names) | st.tuples(st.just("in") | names, names), st.binary(max_size=300))


def fill(directory: Path, tree: dict[str, bytes]) -> Path:
    for name, content in tree.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


def read(directory: Path) -> dict[str, bytes]:
    files = (file for file in directory.rglob("*") if file.is_file())
    return {file.relative_to(directory).as_posix(): file.read_bytes() for file in files}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees)
def test_what_is_packed_comes_out_the_same(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[tuple[str, ...], bytes]
) -> None:
    folders = {key[0] for key in tree if len(key) == 2}
    flat = {
        "/".join(key): content for key, content in tree.items() if not (len(key) == 1 and key[0] in folders)
    }
    there = tmp_path_factory.mktemp("there")
    fill(there, flat)
    back = tmp_path_factory.mktemp("back")
    unpack(pack(there), back / "run")
    assert read(back / "run") == flat
    unpack(pack(there), back / "run")
    assert read(back / "run") == flat
    assert [file.name for file in back.iterdir()] == ["run"]


def test_files_that_are_being_written_are_left_out_and_the_record_is_read_first(tmp_path: Path) -> None:
    fill(tmp_path, {".a.tmp": b"", "state/.last.pt": b"", ".hidden/x": b"", "a": b"1", "record.json": b"2"})
    with tarfile.open(fileobj=io.BytesIO(pack(tmp_path, {"a": b"other"}))) as archive:
        assert archive.getnames() == ["record.json", "a"]
        member = archive.extractfile("a")
        assert member is not None
        assert member.read() == b"other"


@pytest.mark.parametrize("name", ["../outside", "in/../../outside"])
def test_no_name_leads_out_of_the_directory(tmp_path: Path, name: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    fill(tmp_path / "run", {"a": b"1"})
    with pytest.raises(InputError, match="not a packed directory that can be unpacked"):
        unpack(buffer.getvalue(), tmp_path / "run")
    assert read(tmp_path) == {"run/a": b"1"}


def test_no_link_leads_out_of_the_directory(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "../.."
        archive.addfile(link)
    with pytest.raises(InputError, match="not a packed directory"):
        extract(buffer.getvalue(), tmp_path / "run")


def test_damaged_bytes_leave_what_stands(tmp_path: Path) -> None:
    fill(tmp_path / "run", {"a": b"1"})
    for content in (b"no archive", pack(tmp_path / "run")[:600][:513] + b"x" * 40):
        with pytest.raises(InputError):
            unpack(content[:100] if content.startswith(b"no") else b"\xff" + content, tmp_path / "run")
    assert read(tmp_path) == {"run/a": b"1"}


NEW = {"record.json": b"new", "state/last.pt": b"new", "metrics.jsonl": b"new", "equivariance.json": b"new"}
OLD = {"record.json": b"old", "state/last.pt": b"old", "metrics.jsonl": b"old", "leftover": b"old"}


@pytest.mark.parametrize("after", range(4))
def test_a_run_is_whole_at_every_moment(tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off after so many files, the record is the old one as long as anything is missing."""
    run, replace, done = fill(tmp_path / "run", OLD), Path.replace, 0

    def cut_off(self: Path, target: Path) -> Path:
        nonlocal done
        if done == after:
            raise KeyboardInterrupt
        done += 1
        return replace(self, target)

    content = pack(fill(tmp_path / "new", NEW))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", cut_off)
        with pytest.raises(KeyboardInterrupt):
            unpack(content, run)
    found = read(run)
    assert found.keys() >= {"record.json", "state/last.pt", "metrics.jsonl"}
    assert found["record.json"] == b"old"
    assert list(found.values()).count(b"new") == after
    unpack(content, run)
    assert read(run) == NEW
    assert sorted(each.name for each in tmp_path.iterdir()) == ["new", "run"]
