"""Where networks of different lengths are read: a table compares one relative depth, or says that it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from secli.cli.app import app
from secli.records.schema import EquivarianceRecord
from secli.tables.depth import DEEPEST, LAST, read_taps
from secli.tables.readings import value_at
from tests.tables.fabricate import curve_row, curves, data, training, write_run

FACTORS = (0.4, 0.6, 0.8, 1.0)


def network(taps: Mapping[str, Sequence[float]], name: str = "cnn") -> EquivarianceRecord:
    """Return curves of taps with the factors below 1 at which each has a value; logits are invariant."""
    rows = [
        curve_row(
            tap,
            factor,
            0.5 if factor == 1.0 or factor in measured else None,
            field="invariant" if tap == "logits" else "plane",
        )
        for tap, measured in taps.items()
        for factor in FACTORS
    ]
    return curves(name, rows=rows, accuracy=False)


ALL = (0.4, 0.6, 0.8)
LONG = network({"b1": ALL, "b2": ALL, "b3": (0.6, 0.8), "b4": (0.8,), "logits": ALL})
SHORT = network({"lift": ALL, "conv1": ALL, "conv2": (0.6, 0.8), "logits": ALL}, "dss_v1")


def test_the_deepest_of_the_depths_with_most_factors_is_read() -> None:
    # b2 at 2/5 and conv1 at 2/4 have all factors; b3 (3/5) and conv2 (3/4) lack one
    read = read_taps([[LONG], [SHORT]])
    assert read.taps == ("b2", "conv1")
    assert read.factors == ALL
    assert read.depth == pytest.approx(0.4)


def test_factors_that_were_asked_for_decide() -> None:
    read = read_taps([[LONG], [SHORT]], mean_over=(0.8,))
    assert read.taps == ("b4", "conv2")
    assert read.factors == (0.8,)


def test_a_depth_that_one_network_lacks_is_not_read() -> None:
    """At 1/2 and 1 the one has taps, at 1/6, 1/3 the other: no depth is common but the last."""
    one = network({"a": ALL, "logits": ALL})
    many = network({"a": ALL, "b": ALL, "c": (), "d": (), "e": (), "logits": ALL})
    read = read_taps([[one], [many]])
    assert read.taps == ("logits", "logits")
    assert read.depth == LAST
    assert read.factors == ALL


def test_an_empty_depth_gives_way_to_the_logits() -> None:
    nothing = network({"a": (), "b": (), "logits": ALL})
    other = network({"a": ALL, "b": ALL, "logits": ALL})
    read = read_taps([[nothing], [other]])
    # at s = 1 the taps have values, below 1 they have none
    assert read.taps == ("logits", "logits")


def test_a_single_network_is_read_at_its_deepest_full_tap() -> None:
    assert read_taps([[LONG]]).taps == ("b2",)
    assert read_taps([[LONG]], mean_over=(0.6, 0.8)).taps == ("b3",)


def test_what_has_no_value_is_not_asked() -> None:
    silent = curves("dcn", rows=[curve_row("x", f, None) for f in FACTORS], accuracy=False)
    read = read_taps([[LONG], [], [silent], [SHORT]])
    assert read.taps == ("b2", None, None, "conv1")
    assert read_taps([[], []]).taps == (None, None)


def test_all_members_of_a_group_count() -> None:
    weaker = network({"b1": ALL, "b2": (0.8,), "b3": (), "b4": (), "logits": ALL})
    assert read_taps([[LONG, weaker]]).taps == ("b1",)


def test_a_depth_by_request_is_the_nearest_tap() -> None:
    read = read_taps([[LONG], [SHORT]], 0.75)
    assert read.taps == ("b4", "conv2")
    assert read.factors == (0.8,)
    assert read_taps([[LONG], [SHORT]], 1.0).taps == ("logits", "logits")


def test_a_map_is_not_compared_with_logits_at_a_depth_by_request() -> None:
    short = network({"a": ALL, "logits": ALL})
    read = read_taps([[short], [LONG]], 0.85)  # the only map of the one stands at 1/2
    assert read.taps == (None, None)
    assert read_taps([[short], [LONG]], 0.5).taps == ("a", "b3")


def test_the_taps_of_one_depth_are_near_each_other() -> None:
    """Not only near the depth that was looked for: .4, .5 and .6 are no one depth."""
    rungs: list[Mapping[str, Sequence[float]]] = [
        {"a": ALL, "logits": ALL},
        {f"b{k}": ALL for k in range(4)} | {"logits": ALL},
    ]
    third: Mapping[str, Sequence[float]] = {"c1": (), "c2": (), "c3": ALL, "c4": ALL, "logits": ALL}
    read = read_taps([[network(one)] for one in (*rungs, third)])
    spread = [{"a": 0.5, "b1": 0.4, "b2": 0.6, "c3": 0.6, "c2": 0.4}.get(tap or "", 1.0) for tap in read.taps]
    assert max(spread) - min(spread) <= 0.15 + 1e-9


def test_a_network_without_any_value_takes_no_factor_from_the_others() -> None:
    silent = curves("dcn", rows=[curve_row("x", 0.3, None)], accuracy=False)
    assert read_taps([[LONG], [silent], [SHORT]]).factors == ALL


def test_each_for_itself_where_that_is_asked_for() -> None:
    read = read_taps([[LONG], [SHORT]], DEEPEST)
    assert read.taps == ("b2", "conv1")
    assert read.depth is None
    read = read_taps([[LONG], [network({"lift": (0.8,), "logits": ALL})]], DEEPEST)
    assert read.taps == ("b4", "lift")
    assert read.factors == (0.8,)
    assert read_taps([[LONG], [SHORT]], "conv2").factors == (0.6, 0.8)


@given(
    st.lists(
        st.lists(st.sets(st.sampled_from(ALL)), min_size=1, max_size=6),
        min_size=1,
        max_size=4,
    )
)
def test_every_tap_has_a_value_at_every_factor_of_the_mean(networks: list[list[set[float]]]) -> None:
    groups = [
        [network({**{f"t{index}": sorted(own) for index, own in enumerate(taps)}, "logits": ALL})]
        for taps in networks
    ]
    read = read_taps(groups)
    assert read.factors
    for (record,), tap in zip(groups, read.taps, strict=True):
        assert tap is not None
        assert all(value_at(record, tap, factor) is not None for factor in read.factors)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    for record in (LONG, SHORT):
        name, on = record.model.name, data("mnist-scale", 0)
        own = curves(name, rows=record.rows, accuracy=False, trained_on=on)
        write_run(tmp_path / name, training(name, 0.05), own)
    return tmp_path


def stdout(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["compare", *arguments])
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def test_the_command_says_what_it_reads(two: Path) -> None:
    text = stdout(str(two))
    assert "one relative depth, 0.4 of their taps: b2 (cnn); conv1 (dss_v1)" in text
    assert "Δ logits" in text
    assert "rows do not compare" not in text
    text = stdout(str(two), "--tap", "deepest", "--factors", "0.8")
    assert text.index("rows do not compare") < text.index("model")
    assert "their last taps: logits" not in stdout(str(two), "--depth", "0.9")
    text = stdout(str(two), "--depth", "1")
    assert "Δ is read at tap 'logits' of every network" in text
    assert "Δ logits" not in text


def test_a_tap_and_a_depth_exclude_each_other(two: Path) -> None:
    result = CliRunner().invoke(app, ["compare", str(two), "--tap", "b1", "--depth", "0.5"])
    assert result.exit_code == 2
    assert result.stderr.splitlines() == ["error: --depth: --tap names the tap already; give one of the two"]
