"""A sweep's YAML: what is read, what is inherited by its blocks, and what is refused in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secli.errors import InputError
from secli.sweeps.spec import Sweep, parse_numbers, read_sweep

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
HEAD = "name: n\nabout: a\n"
WHOLE = HEAD + "models: [cnn]\ndatasets: [digits-scale]\n"


def read(tmp_path: Path, text: str) -> Sweep:
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    return read_sweep(file)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), min_size=1, max_size=4))
def test_ranges_of_numbers_are_what_they_say(parts: list[tuple[int, int]]) -> None:
    text = ",".join(f"{first}-{first + more}" if more else str(first) for first, more in parts)
    assert parse_numbers(text) == tuple(n for first, more in parts for n in range(first, first + more + 1))


@pytest.mark.parametrize("bad", [True, None, "", "a", "3-1", "1-", "-1", "1,,2", "0-99999999999999"])
def test_what_is_no_range_of_numbers_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match=r"write numbers as|at most 10000"):
        parse_numbers(bad)


def test_names_alone_and_names_with_options(tmp_path: Path) -> None:
    sweep = read(
        tmp_path, HEAD + "models: [cnn, {name: dss_v1, label: DSS, options: {base: 2}}]\ndatasets: [digits]"
    )
    (part,) = sweep.parts
    assert [(m.name, m.label, m.options) for m in part.models] == [
        ("cnn", None, {}),
        ("dss_v1", "DSS", {"base": 2}),
    ]
    assert (part.datasets[0].name, part.datasets[0].realisations, part.seeds) == ("digits", (0,), (0,))
    assert part.measure is None


def test_blocks_inherit_and_merge_settings_options_and_grid_and_replace_all_else(tmp_path: Path) -> None:
    sweep = read(
        tmp_path,
        WHOLE + "training: {epochs: 3, lr: 0.1}\noptions: {classes: 10}\n"
        "grid: {training.augment: [none, scale]}\nseeds: 0-1\n"
        "parts:\n"
        "  - {tag: a}\n"
        "  - {tag: b, models: [dcn], training: {lr: 0.2}, grid: {model.dropout: [0, 0.5]}, seeds: [7]}\n",
    )
    a, b = sweep.parts
    assert (a.training, a.grid, a.seeds) == (
        {"epochs": 3, "lr": 0.1},
        {"training.augment": ("none", "scale")},
        (0, 1),
    )
    assert (b.training, b.seeds, b.options) == ({"epochs": 3, "lr": 0.2}, (7,), {"classes": 10})
    assert b.grid == {"training.augment": ("none", "scale"), "model.dropout": (0, 0.5)}
    assert [m.name for m in b.models] == ["dcn"]


def test_settings_of_the_measure_stand_beside_its_data(tmp_path: Path) -> None:
    measure = read(tmp_path, WHOLE + "measure: {data: digits, factors: [1, 0.5], images: 7}").parts[0].measure
    assert measure is not None
    assert (measure.data, measure.resolved().factors, measure.resolved().images) == ("digits", (1.0, 0.5), 7)


BAD = {
    "a list without brackets": (
        WHOLE.replace("[digits-scale]", "[{name: digits-scale, realisations: 0,2, sizes: [9, 9, 9]}]"),
        "'realisations: 0,2': YAML reads 2 as a key of its own; write realisations: [0, 2]",
    ),
    "ranges without quotes": (
        WHOLE + "parts: [{tag: a, seeds: 0-1,3,5-6}]",
        "'seeds: 0-1,3,5-6': YAML reads 3 as a key of its own; write seeds: \"0-1,3,5-6\"",
    ),
    "factors without brackets": (WHOLE + "measure: {factors: 1,0.5}", "write factors: [1, 0.5]"),
    "no key": ("models: [cnn]", "key 'name' is missing"),
    "a name that is no directory": (WHOLE.replace("name: n", "name: ../n"), "name = '../n'"),
    "unknown key": (WHOLE + "seed: 3", "unknown key 'seed'; did you mean 'seeds'"),
    "unknown key of a model": (
        HEAD + "datasets: [digits]\nmodels: [{name: cnn, lable: x}]",
        "did you mean 'label'",
    ),
    "unknown model": (WHOLE.replace("cnn", "cnm"), "unknown model 'cnm'; did you mean"),
    "unknown dataset": (WHOLE.replace("digits-scale", "digit-scale"), "did you mean 'digits-scale'"),
    "no models": (WHOLE.replace("[cnn]", "[]"), "models = "),
    "no datasets": (WHOLE.replace("[digits-scale]", "[]"), "datasets = "),
    "no seeds": (WHOLE + "seeds: []", "seeds = "),
    "negative seed": (WHOLE + "seeds: [-1]", "seeds.0 = -1"),
    "no blocks": (WHOLE + "parts: []", "parts = "),
    "a block that is none": (WHOLE + "parts: [3]", "parts"),
    "grid that is no mapping": (WHOLE + "grid: [1]", "write model.OPTION: [values]"),
    "grid of nothing": (
        WHOLE + "grid: {model.base: []}",
        "'model.base' needs a list of values, at least one",
    ),
    "grid of one value": (WHOLE + "grid: {model.base: 2}", "'model.base' needs a list"),
    "grid of something else": (WHOLE + "grid: {data.size: [1]}", "'data.size' is neither"),
    "grid setting": (
        WHOLE + "grid: {training.epoch: [1]}",
        "unknown training setting 'epoch'; did you mean 'epochs'",
    ),
    "grid of seeds": (WHOLE + "grid: {training.seed: [1, 2]}", "write seeds beside it"),
    "training setting": (
        WHOLE + "training: {epoch: 1}",
        "unknown training setting 'epoch'; did you mean 'epochs'",
    ),
    "seed in training": (WHOLE + "training: {seed: 1}", "write seeds beside it"),
    "rate that is no number": (WHOLE + "training: {lr: .nan}", "lr = nan"),
    "setting of one model": (
        HEAD + "datasets: [digits]\nmodels: [{name: cnn, training: {lr: -1}}]",
        "lr = -1",
    ),
    "measure": (WHOLE + "measure: {image: 3}", "measure: unknown key 'image'; did you mean 'images'"),
    "factors": (WHOLE + "measure: {factors: [1, 0]}", "greater than 0, not 0"),
    "measured on": (WHOLE + "measure: {data: digts}", "unknown dataset 'digts'; did you mean 'digits'"),
    "exclusion": (
        WHOLE + "exclude: [{modle: cnn}]",
        "unknown key of an exclusion 'modle'; did you mean 'model'",
    ),
    "excluded setting": (WHOLE + "exclude: [{training.agument: none}]", "did you mean 'augment'"),
    "exclusion of all": (WHOLE + "exclude: [{}]", "would leave out every run"),
    "table": (WHOLE + "tables: [{titel: x}]", "tables.0"),
    "YAML": (WHOLE + "grid: {a: [", "not valid YAML (line"),
    "a list": ("- cnn", "expected keys at the top level"),
    "another file": ("model: {name: cnn}", "neither 'models' nor 'parts'"),
    "nothing": ("", "expected keys at the top level"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_line_that_names_it(tmp_path: Path, case: str) -> None:
    text, message = BAD[case]
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "sweep.yaml"))
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_sweep(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="a directory"):
        read_sweep(tmp_path)


@pytest.mark.parametrize(
    "file", [file for file in CONFIGS if "\nabout:" in file.read_text()], ids=lambda f: f.stem
)
def test_every_published_sweep_plans_and_its_head_says_how_many_runs(file: Path) -> None:
    from secli.sweeps.plan import plan

    sweep = read_sweep(file)
    runs = plan(sweep)
    head = file.read_text().split("name:")[0]
    counts = {int(n) for n in re.findall(r"(\d+) runs", head + sweep.cost)}
    products = re.findall(r"(\d+) networks × (\d+) \w+ × (\d+)", head)
    counts |= {int(a) * int(b) * int(c) for a, b, c in products}
    assert counts == {len(runs)}
    assert sweep.name == file.stem.replace("_", "-")


def test_the_table_of_the_field_is_26_networks_twice_six_times_less_the_excluded() -> None:
    from secli.sweeps.plan import plan

    (file,) = (file for file in CONFIGS if file.stem == "mnist_scale_table")
    sweep = read_sweep(file)
    (part,) = sweep.parts
    everything = part.model_copy(update={"exclude": ()})
    runs = plan(sweep)
    assert len(plan(sweep.model_copy(update={"parts": (everything,)}))) == 26 * 2 * 6
    # the "p" networks see augmented training only, their twins plain training only
    twins = {"mnist_ses_scalar", "mnist_ses_vector", "mnist_disco"}
    expected = set()
    for name in (model.name for model in part.models):
        for augment in ("none", "scale"):
            with_twin = name.removesuffix("p").rpartition("_")[0] in twins
            if not with_twin or (augment == "scale") == name.endswith("p"):
                expected |= {(name, augment, r) for r in range(6)}
    found = [(run.model.name, run.resolved.training.augment, run.data.realisation) for run in runs]
    assert len(found) == len(expected)
    assert set(found) == expected
    assert {run.data.name for run in runs} == {"mnist-scale"}
    assert all(run.measure is not None and run.measure.on.name == "mnist" for run in runs)
