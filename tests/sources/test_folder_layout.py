"""Folders as people have them: splits, hidden files, links; make-data and equivariance read them alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from secli.datasets.build import make_dataset
from secli.datasets.pictures import open_pictures
from secli.datasets.store import open_dataset
from secli.errors import InputError
from secli.sources.folder_layout import read_layout


def pictures(folder: Path, count: int = 4, value: int = 0) -> Path:
    """Fill a folder with grey pictures of the values ``value``, ``value`` + 1, …"""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        Image.new("L", (6, 5), value + k).save(folder / f"{value + k}.png")
    return folder


def values(path: Path) -> dict[int, set[int]]:
    """Return which pictures ``equivariance`` takes, by class."""
    found = open_pictures(path)
    assert found.labels is not None
    seen: dict[int, set[int]] = {}
    for image, label in zip(found.images, found.labels.tolist(), strict=True):
        seen.setdefault(label, set()).add(int(image[0, 0, 0]))
    return seen


def made(source: Path, out: Path, **options: object) -> dict[str, dict[int, list[int]]]:
    """Return which pictures ``make-data`` takes, by split and class."""
    (result,) = make_dataset("folder", out, source=source, jobs=1, **options)  # type: ignore[arg-type]
    dataset = open_dataset(result.path)
    found: dict[str, dict[int, list[int]]] = {}
    for name in ("train", "val", "test"):
        split = dataset.split(name)
        found[name] = {
            int(k): sorted(split.images[split.labels == k][:, 0, 0].tolist()) for k in np.unique(split.labels)
        }
    return found


def everything(splits: dict[str, dict[int, list[int]]]) -> dict[int, set[int]]:
    """Return the pictures of all splits by class; each is in one split only."""
    seen: dict[int, set[int]] = {}
    for split in splits.values():
        for label, numbers in split.items():
            assert not seen.setdefault(label, set()) & set(numbers)
            seen[label] |= set(numbers)
    return seen


def splits(root: Path, **counts: int) -> Path:
    for start, (name, count) in enumerate(counts.items()):
        pictures(root / name / "ant", count, 40 * start)
        pictures(root / name / "bee", count, 40 * start + 20)
    return root


@pytest.mark.parametrize(
    ("names", "measured"),
    [
        (("train", "val"), "val"),
        (("train", "valid", "test"), "test"),
        (("Train", "Validation"), "Validation"),
        (("TRAIN", "TEST"), "TEST"),
        (("train",), "train"),
        (("test",), "test"),
        (("validation",), "validation"),
    ],
)
def test_splits_are_splits_under_any_of_their_names(
    tmp_path: Path, names: tuple[str, ...], measured: str
) -> None:
    root = splits(tmp_path / "p", **dict.fromkeys(names, 5))
    (root / "README.md").write_text("where they come from")
    (root / ".DS_Store").write_bytes(b"\0")
    pictures(root / "__MACOSX")
    start = 40 * names.index(measured)
    assert values(root) == {0: set(range(start, start + 5)), 1: set(range(start + 20, start + 25))}
    found = open_pictures(root)
    assert found.classes == ("ant", "bee")
    assert found.order == f"stratified by class, seed 0, of {measured}"
    expected = {"test": [], "val": ["has no test split"], "train": ["may have been trained on"]}
    wanted = expected[{"validation": "val"}.get(measured.lower(), measured.lower())]
    assert len(found.remarks) == len(wanted)
    assert all(text in remark for text, remark in zip(wanted, found.remarks, strict=True))


def test_splits_are_taken_as_they_are_and_a_missing_one_is_drawn_from_train(tmp_path: Path) -> None:
    whole = made(splits(tmp_path / "all", train=6, valid=3, test=4), tmp_path / "o1")
    assert whole["val"] == {0: [40, 41, 42], 1: [60, 61, 62]}
    assert whole["test"] == {0: [80, 81, 82, 83], 1: [100, 101, 102, 103]}
    assert whole["train"] == {0: list(range(6)), 1: list(range(20, 26))}
    no_test = made(splits(tmp_path / "t", train=9, val=3), tmp_path / "o2")
    assert no_test["val"] == whole["val"]
    assert {label: len(part) for label, part in no_test["test"].items()} == {0: 3, 1: 3}
    both = {label: set(no_test["train"][label]) | set(no_test["test"][label]) for label in (0, 1)}
    assert both == {0: set(range(9)), 1: set(range(20, 29))}
    no_val = made(splits(tmp_path / "v", train=14, test=3), tmp_path / "o3")
    assert no_val["test"] == {0: [40, 41, 42], 1: [60, 61, 62]}
    assert {label: len(part) for label, part in no_val["val"].items()} == {0: 2, 1: 2}
    alone = made(splits(tmp_path / "a", train=10), tmp_path / "o4")
    counts = {name: [len(part[0]), len(part[1])] for name, part in alone.items()}
    assert counts == {"train": [6, 6], "val": [1, 1], "test": [3, 3]}
    assert everything(alone) == {0: set(range(10)), 1: set(range(20, 30))}


def test_what_is_drawn_is_told(tmp_path: Path) -> None:
    cases = {
        "train val": ["no test split in the source: 6 images are drawn from train, stratified by class"],
        "train test": ["no val split in the source: 3 images are drawn from train, stratified by class"],
        "train": ["no val split in the source: 2 images", "no test split in the source: 5 images"],
        "train val test": [],
    }
    for case, expected in cases.items():
        source = splits(tmp_path / case.replace(" ", "-"), **dict.fromkeys(case.split(), 9))
        (result,) = make_dataset("folder", tmp_path / f"out {case}", source=source, jobs=1)
        assert len(result.remarks) == len(expected)
        assert all(remark.startswith(text) for text, remark in zip(expected, result.remarks, strict=True)), (
            result.remarks
        )


def test_folders_of_two_readings_are_refused_alike(tmp_path: Path) -> None:
    extra = splits(tmp_path / "extra", train=3, test=3)
    pictures(extra / "unlabelled")
    flat = splits(tmp_path / "flat", train=3)
    pictures(flat / "test")
    twice = splits(tmp_path / "twice", train=3, val=3, valid=3)
    loose = pictures(tmp_path / "loose" / "ant").parent
    pictures(loose, 1)
    hollow = pictures(tmp_path / "hollow" / "ant").parent
    (hollow / "bee").mkdir()
    cases = {
        extra: "train|test holds class folders as a split does, but unlabelled is no such split",
        flat: "train holds class folders as a split does, but test is no such split",
        twice: "val and valid are both the val split",
        loose: r"holds pictures \(0\.png\) beside folders of pictures \(ant\)",
        hollow: "bee: no pictures in this class folder",
    }
    for path, message in cases.items():
        for read in (lambda at: open_pictures(at), lambda at: made(at, tmp_path / "out")):
            with pytest.raises(InputError, match=message) as caught:
                read(path)
            assert "\n" not in str(caught.value)
    for names in (("test",), ("val", "test")):
        with pytest.raises(InputError, match="has no train split"):
            made(splits(tmp_path / "-".join(names), **dict.fromkeys(names, 3)), tmp_path / "out")


def test_classes_may_be_called_as_splits_are(tmp_path: Path) -> None:
    vehicles = pictures(tmp_path / "v" / "train").parent
    pictures(vehicles / "car", value=9)
    assert read_layout(vehicles, "--data").classes == ("car", "train")
    pictures(vehicles / "train" / "steam", value=20)  # one folder of a split's name among others is a class
    assert values(vehicles) == {0: {9, 10, 11, 12}, 1: {0, 1, 2, 3, 20, 21, 22, 23}}


def test_hidden_files_are_no_pictures(tmp_path: Path) -> None:
    root = pictures(tmp_path / "p" / "ant", 10).parent
    pictures(root / "bee", 10, 20)
    (root / "ant" / "._0.png").write_bytes(b"\0\5\x16\7")
    pictures(root / "ant" / ".ipynb_checkpoints", value=90)
    pictures(root / "bee" / "@eaDir" / "20.png", value=90)
    pictures(root / "__MACOSX" / "ant", value=90)
    pictures(root / ".Trash-1000", value=90)
    for name in ("Thumbs.db", "desktop.ini"):
        (root / "ant" / name).write_bytes(b"\0")
    expected = {0: set(range(10)), 1: set(range(20, 30))}
    assert values(root) == expected
    assert everything(made(root, tmp_path / "out")) == expected


def test_linked_folders_are_followed_once_and_loops_named(tmp_path: Path) -> None:
    root = pictures(tmp_path / "p" / "ant", 6).parent
    pictures(root / "bee", 6, 20)
    pictures(tmp_path / "more", 3, 50)
    (root / "ant" / "more").symlink_to(tmp_path / "more")
    (root / "ant" / "twice").symlink_to(tmp_path / "more")
    (root / "bee" / "up").symlink_to(root)
    (root / "bee" / "here").symlink_to(".")
    (root / "whole").symlink_to(".")
    expected = {0: {*range(6), 50, 51, 52}, 1: set(range(20, 26))}
    assert values(root) == expected
    assert everything(made(root, tmp_path / "out")) == expected
    remarks = open_pictures(root).remarks
    (result,) = make_dataset("folder", tmp_path / "out", source=root, jobs=1)
    assert result.remarks == remarks
    found = {Path(remark.partition(":")[0]).name: remark for remark in remarks}
    assert set(found) == {"twice", "up", "here", "whole"}
    assert "the same folder as" in found["twice"]
    assert all("not followed" in found[name] for name in ("up", "here", "whole"))


def test_a_whole_split_may_be_a_link(tmp_path: Path) -> None:
    splits(tmp_path / "elsewhere", train=3, test=3)
    root = tmp_path / "p"
    root.mkdir()
    for name in ("train", "test"):
        (root / name).symlink_to(tmp_path / "elsewhere" / name)
    assert values(root) == {0: {40, 41, 42}, 1: {60, 61, 62}}
    assert open_pictures(root).remarks == ()
