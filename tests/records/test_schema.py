"""Records: round trip, damage named, migration on read, and an atomic store that loses nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import secli.records.schema as records
from secli.errors import InputError
from secli.provenance import gather, library_versions, sha256_file
from secli.records.older import MIGRATIONS
from secli.records.schema import (
    DataInfo,
    ModelInfo,
    TrainingRecord,
    read_record,
    read_training_record,
    write_record,
)
from secli.storage.writing import atomic_directory, atomic_path


def make_record() -> TrainingRecord:
    return TrainingRecord(
        status="finished",
        model=ModelInfo(name="cnn", options={"classes": 10}, parameters=34670),
        data=DataInfo(name="digits-scale", realisation=0, digest="0" * 64, path="data/digits-scale/r0"),
        training={"epochs": 2, "seed": 0},
        provenance=gather("cpu", 2),
    )


def test_round_trip(tmp_path: Path) -> None:
    record = make_record()
    write_record(tmp_path / "run" / "record.json", record)
    assert read_training_record(tmp_path / "run") == record
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["record.json"]


def test_every_key_of_every_record_is_explained() -> None:
    parts = [
        kind
        for kind in vars(records).values()
        if isinstance(kind, type) and issubclass(kind, records.RecordPart)
    ]
    assert len(parts) > 8
    for part in parts:
        assert issubclass(part, BaseModel)
        for name, field in part.model_fields.items():
            assert field.description, f"{part.__name__}.{name} has no sentence"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged record \\(not JSON\\)"),
        ("[]", "not a record of secli"),
        ('{"schema_version": 99}', "newer than this secli; upgrade"),
        ('{"schema_version": 0}', "has never existed"),
        ('{"schema_version": 1, "kind": "training"}', "damaged record"),
        ('{"schema_version": 1, "kind": "poem"}', "damaged record"),
    ],
)
def test_damage_is_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "record.json"
    file.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_record(file)
    assert str(file) in str(caught.value)


def test_missing_run_and_missing_record_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run directory"):
        read_training_record(tmp_path / "none")
    with pytest.raises(InputError, match="is this a run directory"):
        read_training_record(tmp_path)


def test_old_records_migrate_on_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old: dict[str, Any] = make_record().model_dump(mode="json")
    old["schema_version"] = 0
    old["state"] = old.pop("status")

    def from_0(content: dict[str, Any]) -> dict[str, Any]:
        return {
            **{k: v for k, v in content.items() if k != "state"},
            "status": content["state"],
            "schema_version": 1,
        }

    monkeypatch.setitem(MIGRATIONS, 0, from_0)
    (tmp_path / "record.json").write_text(json.dumps(old))
    assert read_training_record(tmp_path) == make_record().model_copy(
        update={"provenance": read_training_record(tmp_path).provenance}
    )


def test_a_failed_write_leaves_what_stood_there(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_text("old")

    def fail() -> None:
        with atomic_path(file) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert file.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["weights"]


def test_a_failed_directory_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_directory(tmp_path / "set") as temporary:
            (temporary / "file").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []
    with atomic_directory(tmp_path / "set") as temporary:
        (temporary / "file").write_text("whole")
    assert (tmp_path / "set" / "file").read_text() == "whole"
    with pytest.raises(InputError, match="already exists"), atomic_directory(tmp_path / "set"):
        pass


def test_provenance_names_versions_and_threads(tmp_path: Path) -> None:
    provenance = gather("cpu", 3)
    assert provenance.threads == 3
    assert {"torch", "numpy"} <= set(provenance.libraries) == set(library_versions())
    assert provenance.created.endswith("+00:00")
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256_file(tmp_path / "f").startswith("ba7816bf")
