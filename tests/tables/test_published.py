"""Published figures: carried whole, matched only to runs of their protocol, marked where the setting differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from secli.catalogue import MODELS
from secli.datasets.build import make_dataset
from secli.datasets.manifest import read_manifest
from secli.datasets.protocols import DATASETS
from secli.models.building import resolve_options
from secli.records.schema import write_record
from secli.tables.collect import collect
from secli.tables.groups import Group, summarise
from secli.tables.pivot import TableSpec, pivot_tables
from secli.tables.published import Figure, Published, _as_published, elsewhere, load_published, reported
from secli.tables.render import render
from tests.tables.fabricate import curves, training, write_run

SES = {
    "mnist_ses_scalar_28": ("none", 2.10, 0.10, 1.95, 0.17),
    "mnist_ses_scalar_28p": ("scale", 1.79, 0.09, 1.98, 0.14),
    "mnist_ses_scalar_56": ("none", 1.74, 0.09, 1.68, 0.12),
    "mnist_ses_scalar_56p": ("scale", 1.50, 0.07, 1.67, 0.18),
    "mnist_ses_vector_28": ("none", 2.08, 0.09, 2.00, 0.20),
    "mnist_ses_vector_28p": ("scale", 1.76, 0.08, 2.00, 0.21),
    "mnist_ses_vector_56": ("none", 1.68, 0.06, 1.66, 0.17),
    "mnist_ses_vector_56p": ("scale", 1.42, 0.07, 1.59, 0.16),
}


def row_of(tmp_path: Path, *args: Any, **kwargs: Any) -> Group:
    return summarise([write_run(tmp_path / "run", training(*args, **kwargs))]).rows[0]


@pytest.mark.parametrize("name", SES)
def test_ses_figures_stand_beside_the_run_of_their_setting(tmp_path: Path, name: str) -> None:
    augment, paper, paper_std, reproduction, reproduction_std = SES[name]
    found = reported(row_of(tmp_path, name, augment=augment), load_published())
    assert [r.source.kind for r in found] == ["paper", "reproduction"]
    assert [r.figure.value for r in found] == pytest.approx([paper / 100, reproduction / 100])
    assert [r.figure.std for r in found] == pytest.approx([paper_std / 100, reproduction_std / 100])
    assert all(not r.departures for r in found)


def test_the_other_crossings_have_no_published_figure(tmp_path: Path) -> None:
    for name, augment in (("mnist_ses_scalar_28", "scale"), ("mnist_ses_scalar_28p", "none")):
        assert not reported(row_of(tmp_path / augment, name, augment=augment), load_published())


def test_other_data_has_no_published_figure(tmp_path: Path) -> None:
    for name in ("digits-scale", "mnist", "mnist-scale-extended", "fashion-scale-1a2b3c4d"):
        assert not reported(row_of(tmp_path / name, "mnist_ses_scalar_28", dataset=name), load_published())


def test_another_setting_is_marked(tmp_path: Path) -> None:
    found = reported(row_of(tmp_path / "a", "mnist_ses_scalar_28", epochs=2), load_published())
    assert found[0].departures == ("epochs 60 there, 2 here",)
    found = reported(row_of(tmp_path / "b", "mnist_ses_scalar_28", options={"size": 9}), load_published())
    assert found[0].departures == ("option size 15 there, 9 here",)
    found = reported(row_of(tmp_path / "c", "cnn", epochs=2), load_published())
    assert found[0].departures == (
        "sizes 10000/?/10000 there, 10000/2000/50000 here",
        "epochs 60 to 100 there, 2 here",
    )


def test_data_of_other_sizes_have_the_figure_and_the_mark(tmp_path: Path) -> None:
    row = row_of(tmp_path / "a", "mnist_ses_scalar_28", dataset="mnist-scale-1a2b3c4d", test_images=2000)
    assert [r.departures for r in reported(row, load_published())] == [
        ("data mnist-scale there, mnist-scale-1a2b3c4d here", "50000 test images there, 2000 here")
    ] * 2


def test_the_sizes_are_named_where_the_data_are_still_there(tmp_path: Path) -> None:
    (made,) = make_dataset("digits-scale", tmp_path / "data", [0], sizes=(60, 10, 20), jobs=1)
    manifest = read_manifest(made.path)
    record = training("cnn", dataset=manifest.name, test_images=20, digest=manifest.digest)
    there = record.data.model_copy(update={"path": str(made.path)})
    row = summarise([write_run(tmp_path / "run", record.model_copy(update={"data": there}))]).rows[0]
    content = load_published().model_dump()
    content["protocols"]["curves"] |= {"dataset": "digits-scale", "sizes": None}
    (found,) = reported(row, Published.model_validate(content))
    assert found.departures[:2] == (
        f"data digits-scale there, {manifest.name} here",
        "sizes 1000/200/597 there, 60/10/20 here",
    )


def test_the_marks_of_other_sizes_stand_in_a_table(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", training("mnist_ses_scalar_28", dataset="mnist-scale-1a2b3c4d"))
    (table,) = pivot_tables(*collect([run]), TableSpec(), load_published())
    assert "† Not the published setting: data mnist-scale there, mnist-scale-1a2b3c4d here." in table.notes
    assert "2.10" in render(table, "markdown")


@pytest.mark.parametrize("name", ["dcn", "dcn_v2"])
def test_options_of_the_publication_come_before_the_catalogues(tmp_path: Path, name: str) -> None:
    (found,) = reported(row_of(tmp_path / "1", name, options={"deformable_groups": 1}), load_published())
    assert "option deformable_groups 10 there, 1 here" in found.departures
    (found,) = reported(row_of(tmp_path / "10", name, options={"deformable_groups": 10}), load_published())
    assert not any("deformable_groups" in one for one in found.departures)


def test_an_option_that_the_catalogue_leaves_to_the_builder_is_marked_too(tmp_path: Path) -> None:
    record = training("mnist_ses_vector_28", options={"scale_pool": "mean"})
    changed = record.model.model_copy(update={"changed": {"scale_pool": "max"}})
    row = summarise([write_run(tmp_path / "run", record.model_copy(update={"model": changed}))]).rows[0]
    assert "option scale_pool max there, mean here" in reported(row, load_published())[0].departures


PAIRS = [
    (name, figure)
    for figure in load_published().figures
    for name in figure.models
    if figure.metric in ("test_error", "accuracy")
    and load_published().protocols[figure.protocol].comparable
    and name in MODELS
]


@pytest.mark.parametrize(("name", "figure"), PAIRS, ids=lambda part: getattr(part, "source", part))
def test_a_network_as_it_stands_departs_only_where_the_publication_says_so(
    tmp_path: Path, name: str, figure: Figure
) -> None:
    """By values: an option that is 3 in the catalogue and 3.0 in a record is the published one."""
    published = load_published()
    protocol = published.protocols[figure.protocol]
    options = to_jsonable_python(resolve_options(MODELS[name], None))
    record = training(name, dataset=protocol.dataset, augment=protocol.augment, options=options)
    standard = DATASETS[protocol.dataset].standard.as_dict()
    sizes = [
        there or here
        for there, here in zip(protocol.sizes or standard["sizes"], standard["sizes"], strict=True)
    ]
    seen = record.data.model_copy(update={"parameters": {**standard, "sizes": sizes}})
    row = summarise([write_run(tmp_path / "run", record.model_copy(update={"data": seen}))]).rows[0]
    (found,) = [each for each in reported(row, published) if each.figure == figure]
    assert list(found.departures) == [
        f"option {key} {value} there, {options[key]} here"
        for key, value in figure.options.items()
        if options[key] != value
    ]


def test_values_are_compared_and_not_their_types(tmp_path: Path) -> None:
    for here, told in ((3.0, ()), (3, ()), (3.5, ("option factor 3 there, 3.5 here",))):
        row = row_of(tmp_path / str(here), "mnist_ses_vector_28", options={"factor": here})
        assert {each.departures for each in reported(row, load_published())} == {told}


def test_an_untrained_network_has_no_published_figure(tmp_path: Path) -> None:
    write_record(tmp_path / "fresh.json", curves("mnist_ses_scalar_28", trained=False))
    assert not reported(summarise([tmp_path / "fresh.json"]).rows[0], load_published())


def test_accuracies_over_scale_are_at_the_inverse_of_the_downscaling(tmp_path: Path) -> None:
    (found,) = reported(row_of(tmp_path, "dss_v1"), load_published())
    assert found.figure.by_factor == {
        1.0: 0.957, 1 / 1.1: 0.968, 1 / 1.5: 0.972, 0.5: 0.963, 0.4: 0.947, 1 / 3: 0.914,
    }  # fmt: skip
    assert found.figure.uncertainty == 0.002


def test_other_protocols_never_stand_beside_a_run(tmp_path: Path) -> None:
    published = load_published()
    apart = elsewhere([row_of(tmp_path, "mnist_ses_vector_28")], published)
    values = {(r.figure.system, r.figure.metric): r.figure.value for r in apart}
    assert values[("Fourier layers", "equivariance_error")] == 0.0
    assert values[("learned scales 56", "test_error")] == pytest.approx(0.017)
    assert values[("InvarPDEs-Net", "accuracy")] == 0.8962
    for entry in apart:
        assert not entry.protocol.comparable or entry.figure.metric == "parameters"


def test_every_figure_is_of_a_network_we_have_or_will_have() -> None:
    later = {
        "dss_v2", "deform_dss", "so2_cnn", "mnist_ss_28", "mnist_ss_56", "mnist_xu_28", "mnist_kanazawa_28",
        "mnist_sevf_vector_28", "mnist_sevf_vector_56",
    }  # fmt: skip
    named = {model for figure in load_published().figures for model in figure.models}
    assert named <= set(MODELS) | later


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": 3}, "Extra inputs"),
        ({"value": None}, "either value or by_downscaling"),
        ({"value": 2.1}, "is a fraction"),
        ({"source": "nobody"}, "no source 'nobody'"),
        ({"protocol": "nothing"}, "no protocol 'nothing'"),
    ],
)
def test_the_schema_is_strict(change: dict[str, Any], message: str) -> None:
    figure = {
        "system": "X", "models": [], "metric": "test_error", "value": 0.1, "source": "s", "protocol": "p", **change,
    }  # fmt: skip
    content = {
        "sources": {"s": {"text": "S", "year": 2020, "kind": "paper"}},
        "protocols": {"p": {"dataset": "d", "augment": "none", "comparable": True, "description": "d"}},
        "figures": [figure],
    }
    with pytest.raises(ValidationError, match=message):
        Published.model_validate(content)


def test_a_protocol_names_only_known_settings() -> None:
    with pytest.raises(ValidationError, match="unknown training settings"):
        Published.model_validate(
            {
                "sources": {},
                "protocols": {
                    "p": {
                        "dataset": "d",
                        "augment": "none",
                        "comparable": True,
                        "description": "d",
                        "training": {"epoch": 3},
                    }
                },
                "figures": [],
            }
        )


def test_sizes_are_compared_with_the_publication_and_not_with_the_standard_set() -> None:
    """The scale curves were tested on 10 000 images; what was not said of the validation images may be anything."""
    curves = load_published().protocols["curves"]
    assert curves.sizes == (10_000, None, 10_000)
    assert _as_published([10_000, 2_000, 10_000], curves.sizes)
    assert not _as_published([10_000, 2_000, 50_000], curves.sizes)
    assert not _as_published([2_000, 500, 2_000], curves.sizes)
    assert not _as_published([10_000, 2_000], curves.sizes)
    assert _as_published(None, None)
