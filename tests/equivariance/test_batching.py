"""Batches: chosen from measured memory, and without a say in what is measured."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import secli.action.images
from secli.action.images import Axis, apply_axes, axis_operator, blur_variance, resample
from secli.config import MeasureSettings
from secli.equivariance import batching, memory
from secli.equivariance.batching import batch_size, fitting
from secli.equivariance.cell_error import Shares
from secli.equivariance.curves import Curves, curve_batch, measure_curves
from secli.equivariance.lie import lie_derivatives
from secli.equivariance.memory import LiveBytes, free_bytes, peak_bytes
from secli.models.building import build
from secli.records.identity import pooling_key
from secli.records.schema import AccuracyRow, CurveRow, read_record

NETWORKS = ("cnn", "dss_v1", "mnist_ses_vector_28", "mnist_sevf_vector_28", "dss_v2")
GIB = 1 << 30


def curves(name: str, images: Tensor, batch: int | None, **wanted: object) -> Curves:
    asked = {"factors": (1.2, 0.7, 0.5), "images": len(images), "batch": batch, **wanted}
    model = build(name).eval()
    return measure_curves(model, images, MeasureSettings.model_validate(asked))


@pytest.mark.parametrize("name", NETWORKS)
def test_no_number_depends_on_the_batch(digits: Tensor, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("secli.equivariance.cell_error.FLOORED", 5)
    images = digits[:7]
    whole = curves(name, images, 7)
    for batch in (3, None):
        parts = curves(name, images, batch)
        assert parts.batch == (batch or 7)
        pairs: list[tuple[CurveRow | AccuracyRow, CurveRow | AccuracyRow]] = [
            *zip(whole.rows, parts.rows, strict=True),
            *zip(whole.accuracy, parts.accuracy, strict=True),
        ]
        for one, other in pairs:
            for key, value in one:
                found = getattr(other, key)
                if isinstance(value, float):
                    # float32: convolutions of other batches may round otherwise
                    assert found == pytest.approx(value, rel=1e-4, abs=1e-9), (one.factor, key)
                else:
                    assert found == value, (one.factor, key)


def test_the_lie_derivative_does_not_depend_on_the_batch(digits: Tensor) -> None:
    model = build("dss_v1").eval()
    one, other = (
        lie_derivatives(model, digits[:9], MeasureSettings(images=9, batch=batch)) for batch in (9, None)
    )
    assert [row.mean for row in one] == pytest.approx([row.mean for row in other], rel=1e-4)


def test_each_operator_is_built_once_and_each_factor_passed_once(
    digits: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: Counter[tuple[object, ...]] = Counter()
    real = secli.action.images.axis_matrix

    def counted(*axis: object) -> object:
        built[axis] += 1
        return real(*axis)  # type: ignore[arg-type]

    monkeypatch.setattr(secli.action.images, "axis_matrix", counted)
    axis_operator.cache_clear()
    secli.action.images.plane_operator.cache_clear()
    model = build("mnist_ses_vector_28").eval()
    passes: Counter[int] = Counter()
    real_features = model.features
    monkeypatch.setattr(
        model, "features", lambda images: (passes.update([len(images)]), real_features(images))[1]
    )
    wanted = MeasureSettings(factors=(1.0, 0.8, 0.5), images=6, batch=3)
    measure_curves(model, digits[:6], wanted)
    # two batches at three factors; two passes over two images show that it repeats itself, a batch and one of its
    # pictures alone that it does not mix them, and one is the empty picture
    assert passes == {3: 7, 2: 2, 1: 2}
    first = sum(built.values())
    # a small plane takes one matrix for both axes, so an axis may be built for either use, never again after
    assert max(built.values()) <= 2
    measure_curves(model, digits[:6], wanted)
    assert sum(built.values()) == first


@pytest.mark.parametrize(("rows", "columns"), [((7, 7), (7, 7)), ((5, 5), (9, 9)), ((4, 8), (10, 3))])
@pytest.mark.parametrize("power", [1, 2])
def test_the_one_matrix_of_a_small_plane_is_its_two(
    rows: tuple[int, int], columns: tuple[int, int], power: int
) -> None:
    if power > 1 and rows[0] != rows[1]:
        pytest.skip("a power needs a square matrix")
    axes = [
        Axis(n, m, 1 / 0.7, (n - 1) / 2 + shift, (m - 1) / 2, blur_variance(0.7), power)
        for (n, m), shift in ((rows, 0.0), (columns, 0.25))
    ]
    x = torch.rand(2, 3, rows[0], columns[0], dtype=torch.float64)
    two = [axis_operator(axis, x.dtype, x.device) for axis in axes]
    assert torch.allclose(resample(x, *axes), apply_axes(two[0], x, two[1]), atol=1e-14)
    assert not torch.allclose(resample(x, *axes), apply_axes(two[0], x.flip(-1), two[1]), atol=1e-3)


def test_live_bytes_are_those_in_use() -> None:
    with LiveBytes() as counted:
        one = torch.zeros(1000)
        two = one + 1
        del one
        assert (counted.live, counted.peak) == (4000, 8000)
        view = two.view(10, 100)
        view += 1
        del two
        assert (counted.live, counted.peak) == (4000, 8000)  # one storage, whatever it is called
        del view
    assert (counted.live, counted.peak) == (0, 8000)


def test_the_price_of_an_image_is_measured_without_what_is_kept() -> None:
    kept: list[Tensor] = []

    def work(images: Tensor) -> None:
        if not kept:
            kept.append(torch.zeros(1 << 20))  # built at the first call
        assert len((images + 1) * 2) == len(images)

    image = torch.rand(1, 1, 16, 16)
    assert peak_bytes(lambda: work(image)) == (4 << 20) + 2 * 1024
    assert peak_bytes(lambda: work(image)) == 2 * 1024


def sizes(monkeypatch: pytest.MonkeyPatch, free: int | None, allowed: int, most: int) -> None:
    monkeypatch.setattr(batching, "free_bytes", lambda device: free)
    monkeypatch.setitem(batching.BYTES, "cpu", allowed)
    monkeypatch.setitem(batching.IMAGES, "cpu", most)


@settings(max_examples=60, deadline=None)
@given(each=st.integers(1, GIB), free=st.none() | st.integers(0, 1 << 40), allowed=st.integers(1, 1 << 33))
def test_a_batch_is_a_power_of_two_that_fits(each: int, free: int | None, allowed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        sizes(patch, free, allowed, 64)
        batch = fitting(each, "cpu")
    bound = allowed if free is None else min(allowed, free // 4)
    assert batch.bit_count() == 1
    assert 1 <= batch <= 64
    assert batch == 1 or batch * each <= bound
    assert batch == 64 or 2 * batch * each > bound  # not smaller than it need be


def test_a_batch_shrinks_with_what_is_free_and_does_not_grow_beyond_the_bound(
    monkeypatch: pytest.MonkeyPatch, digits: Tensor
) -> None:
    model, images = build("mnist_ses_vector_28").eval(), digits.repeat(3, 1, 1, 1)
    found = []
    for free in (None, 100 * GIB, 2 * GIB, 64 << 20, 0):
        monkeypatch.setattr(batching, "free_bytes", lambda device, free=free: free)
        found.append(curve_batch(model, images, MeasureSettings(), on_black=True))
    assert found[0] == found[1] == found[2] == 64
    assert found[2] > found[3] > found[4] == 1
    assert curve_batch(model, images, MeasureSettings(batch=7), on_black=True) == 7


def test_work_that_takes_more_gets_a_smaller_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes(monkeypatch, None, 1 << 20, 1 << 20)
    images = torch.zeros(4096, 1, 16, 16)

    def chosen(width: int) -> int:
        layer = nn.Conv2d(1, width, 1)
        return batch_size(None, images, layer, "cpu", torch.float32)

    with torch.no_grad():
        assert chosen(1) == 512  # the images themselves count
        assert chosen(8) == 64


def test_free_memory_is_the_least_of_system_and_groups(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meminfo, own, groups = tmp_path / "meminfo", tmp_path / "cgroup", tmp_path / "groups"
    for name, path in (("MEMINFO", meminfo), ("OWN_GROUPS", own), ("GROUPS", groups)):
        monkeypatch.setattr(memory, name, path)
    assert free_bytes("cpu") is None  # another system
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    assert free_bytes("cpu") == 4000 * 1024
    job = groups / "batch" / "job"
    job.mkdir(parents=True)
    own.write_text("0::/batch/job\n")
    (job / "memory.max").write_text("max\n")
    (job / "memory.current").write_text("1000\n")
    assert free_bytes("cpu") == 4000 * 1024
    (groups / "batch" / "memory.max").write_text("2000000\n")
    (groups / "batch" / "memory.current").write_text("1500000\n")
    (groups / "batch" / "memory.stat").write_text("anon 7\ninactive_file 100000\n")
    assert free_bytes("cpu") == 600_000
    old = groups / "memory"
    old.mkdir()
    own.write_text("9:cpuset:/\n4:cpu,memory:/gone\n")
    (old / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (old / "memory.usage_in_bytes").write_text("5\n")
    assert free_bytes("cpu") == 4000 * 1024
    (old / "memory.limit_in_bytes").write_text("300000\n")
    assert free_bytes("cpu") == 299_995


def test_shares_are_weighed_by_images() -> None:
    assert Shares().mean is None
    shares = Shares()
    assert shares.add(0.5, 3) == 0.5
    assert shares.mean == 0.5
    assert shares.add(torch.tensor([0.0, 1.0, 1.0, 1.0], dtype=torch.float64), 4) == 0.75
    assert shares.mean == pytest.approx(4.5 / 7)
    assert shares.mean != pytest.approx((0.5 + 0.75) / 2)


def test_the_batch_is_recorded_and_parts_no_runs(digits: Tensor, tmp_path: Path) -> None:
    from secli.equivariance.record import equivariance_record
    from secli.records.schema import (
        DataInfo,
        EquivarianceRecord,
        ModelInfo,
        write_record,
    )

    model = build("cnn").eval()
    wanted = MeasureSettings(factors=(0.5,), images=6, taps=("block1",))
    info = ModelInfo(name="cnn", options={}, parameters=1)
    data = DataInfo(name="digits", realisation=0, digest="0", path="x", lossy=False)
    records = []
    for batch in (None, 2):
        asked = wanted.model_copy(update={"batch": batch})
        found = measure_curves(model, digits[:6], asked)
        record = equivariance_record(found, asked, data, info, seed=0, device="cpu", threads=1)
        write_record(tmp_path / "record.json", record)
        assert record.measure["batch"] == found.batch == (batch or 6)
        again = read_record(tmp_path / "record.json")
        assert isinstance(again, EquivarianceRecord)
        records.append(again)
    assert pooling_key(records[0], None) == pooling_key(records[1], None)
    other = records[0].model_copy(update={"measure": {**records[0].measure, "images": 5}})
    assert pooling_key(other, None) != pooling_key(records[0], None)
