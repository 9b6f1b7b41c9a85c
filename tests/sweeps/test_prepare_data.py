"""Datasets are made once and verified after; stand-ins; runs become jobs, each once."""

from __future__ import annotations

from pathlib import Path

import pytest

from secli.datasets.store import open_dataset
from secli.errors import InputError
from secli.sweeps.plan import DatasetRequest, Shape, known_shape, plan
from secli.sweeps.prepare_data import (
    Sources,
    check_sources,
    jobs_of,
    prepare,
    present,
    requested_datasets,
    shape_in,
)
from tests.sweeps.conftest import SIZES, sweep_of

DIGITS = DatasetRequest("digits-scale", 0, SIZES)


def test_every_realisation_is_wanted_once_and_made_once(tmp_path: Path) -> None:
    data = [{"name": "digits-scale", "realisations": "0-1", "sizes": list(SIZES)}]
    runs = plan(sweep_of(datasets=data, seeds=[0, 1], measure={"images": 3}))
    wanted = requested_datasets(runs)
    assert wanted == [
        *(DatasetRequest("digits-scale", r, SIZES) for r in (0, 1)),
        *(DatasetRequest("digits", r, SIZES) for r in (0, 1)),
    ]
    told: list[tuple[str, int, int]] = []
    assert present(wanted, Sources(tmp_path)) == []
    ready = prepare(wanted, Sources(tmp_path), lambda *progress: told.append(progress))
    assert {name for name, _, _ in told} == {"digits-scale", "digits"}
    assert {each: (d.manifest.protocol, d.realisation) for each, d in ready.items()} == {
        each: (each.name, each.realisation) for each in wanted
    }
    assert present(wanted, Sources(tmp_path)) == wanted
    assert all(
        shape_in(dataset) == known_shape(each) == Shape(1, 28, 28, 10) for each, dataset in ready.items()
    )
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.npy")}
    again = prepare(wanted, Sources(tmp_path))
    assert {each: dataset.digest for each, dataset in again.items()} == {
        e: d.digest for e, d in ready.items()
    }
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.npy")} == before


def test_a_damaged_dataset_is_named(tmp_path: Path) -> None:
    place = prepare([DIGITS], Sources(tmp_path))[DIGITS].path
    (place / "test-labels.npy").write_bytes(b"")
    with pytest.raises(InputError, match=r"test-labels.npy"):
        prepare([DIGITS], Sources(tmp_path))


def test_a_directory_stands_in_for_a_dataset(tmp_path: Path, made: Path) -> None:
    real = prepare([DIGITS], Sources(made))[DIGITS]
    cifar = DatasetRequest("cifar10-scale", 0)
    sources = Sources(tmp_path / "data", stand_ins={"cifar10-scale": real.path.parent})
    check_sources([cifar], sources, tmp_path)
    assert prepare([cifar], sources)[cifar].digest == real.digest
    assert present([cifar], sources) == [cifar]
    assert present([DatasetRequest("folder", 0)], sources) == []
    assert not (tmp_path / "data").exists()
    assert sources.shape_of()(cifar) is None  # its own, once it is read
    assert sources.shape_of()(DIGITS) == Shape(1, 28, 28, 10)
    with pytest.raises(
        InputError, match=r"r3: no such dataset directory; it shall stand in for realisation 3"
    ):
        check_sources([DatasetRequest("cifar10-scale", 3)], sources, tmp_path)
    with pytest.raises(
        InputError, match=r"--stand-in cifar10-scale: the sweep takes no cifar10-scale, only digits"
    ):
        check_sources([DIGITS], sources, tmp_path)


def test_what_cannot_be_read_or_written_is_refused_first(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match=r"--source .*none: no such directory"):
        check_sources([DIGITS], Sources(tmp_path, source=tmp_path / "none"), tmp_path)
    for sources, place in [(Sources(file / "data"), tmp_path), (Sources(tmp_path), file / "sweep")]:
        with pytest.raises(InputError, match="is a file, not a directory"):
            check_sources([DIGITS], sources, place)
        check_sources([DIGITS], sources, place, writes=False)
    assert sorted(tmp_path.iterdir()) == [file]


def test_blocks_that_share_a_run_make_one_job_which_is_measured_if_one_of_them_says_so(
    tmp_path: Path, made: Path
) -> None:
    for blocks in (
        [{"tag": "a", "measure": {"images": 3}}, {"tag": "b"}],
        [{"tag": "b"}, {"tag": "a", "measure": {}}],
    ):
        runs = plan(sweep_of(parts=blocks))
        ready = prepare(requested_datasets(runs), Sources(made))
        (job,) = jobs_of(runs, ready, tmp_path)
        assert job.measure is not None
        assert job.measured_on is not None
        assert open_dataset(job.measured_on).digest == job.measured_digest
        assert job.key == runs[0].key(ready[runs[0].data].digest)
        assert job.run == tmp_path / "cnn" / f"digits-scale-r0-s0-{job.key}"
