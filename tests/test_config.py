"""Settings: unknown keys, values out of range, factors, assignments, YAML files."""

import itertools
import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from secli.catalogue import MODELS
from secli.config import (
    Config,
    MeasureSettings,
    TrainingSettings,
    file_name,
    parse_assignments,
    parse_factors,
    read_config,
    settings_hash,
    validated,
)
from secli.errors import InputError
from secli.models.building import options_schema, resolve_options
from secli.sweeps.spec import Sweep, read_sweep
from secli.yaml_files import parse_yaml


@given(low=st.floats(0.02, 0.9), count=st.integers(2, 20))
def test_a_range_of_factors_is_geometric_and_ends_where_it_says(low: float, count: int) -> None:
    factors = parse_factors(f"{low!r}:1:{count}")
    assert len(factors) == count
    assert factors[-1] == 1.0
    assert factors[0] == low
    ratios = [b / a for a, b in itertools.pairwise(factors)]
    assert max(ratios) == pytest.approx(min(ratios))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "greater than 0, not 0"),
        ("1,-0.5", "greater than 0, not -0.5"),
        ("nan", "finite and greater than 0, not nan"),
        ("inf", "finite"),
        ("", "write a list like"),
        ("a,b", "write a list like"),
        ("1:0.5:3", "LOW < HIGH"),
        ("0.5:1", "write a list like"),
        ("0.5:1:1", "at least 2"),
        ("0.5:1:x", "write a list like"),
    ],
)
def test_bad_factors_are_one_line_that_names_the_option(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_factors(text)
    assert str(caught.value).startswith("--factors")
    assert "\n" not in str(caught.value)


def test_an_unknown_key_suggests_the_near_miss() -> None:
    with pytest.raises(InputError, match="here: unknown key 'epoch'; did you mean 'epochs'\\?"):
        validated(TrainingSettings, {"epoch": 3}, "here")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs = 0"),
        ({"lr": math.nan}, "lr = nan"),
        ({"optimizer": "adagrad"}, "optimizer = 'adagrad'"),
        ({"milestones": [20, 10]}, "increasing order"),
        ({"batch": "many"}, "batch = 'many'"),
    ],
)
def test_values_out_of_range_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        validated(TrainingSettings, values, "training")


def test_settings_are_frozen_and_factors_checked() -> None:
    with pytest.raises(ValueError, match="frozen"):
        TrainingSettings().epochs = 3  # type: ignore[misc]
    with pytest.raises(InputError, match="greater than 0, not 0"):
        validated(MeasureSettings, {"factors": [1, 0]}, "measure")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model.base", "SECTION.KEY=VALUE"),
        ("base=2", "SECTION.KEY=VALUE"),
        ("modle.base=2", "did you mean 'model'"),
        ("model.base=[1", "not valid YAML"),
    ],
)
def test_bad_assignments(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_assignments([text], ["model", "training"])


def test_assignments_are_yaml() -> None:
    given_values = parse_assignments(
        ["model.base=1.5", "model.mode=vector", "training.milestones=[1, 2]"], ["model", "training"]
    )
    assert given_values == {"model": {"base": 1.5, "mode": "vector"}, "training": {"milestones": [1, 2]}}


def test_config_files(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("model: {name: cnn, options: {classes: 3}}\ntraining: {epochs: 2}\n")
    config = read_config(file)
    assert config.model is not None
    assert config.model.options == {"classes": 3}
    assert config.training == {"epochs": 2}
    file.write_text("")
    assert read_config(file) == Config()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("modle: {name: cnn}", "unknown key 'modle'; did you mean 'model'"),
        ("model: {nam: cnn}", "unknown key 'model.nam'|key 'model.name' is missing"),
        ("a: [", "not valid YAML \\(line"),
        ("- 1", "expected keys at the top level"),
    ],
)
def test_bad_config_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_config(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_config_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_config(tmp_path / "none.yaml")


def test_every_file_in_configs_is_valid() -> None:
    files = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
    assert files
    runs = [file for file in files if "model" in yaml.safe_load(file.read_text())]
    assert runs  # all others are sweeps: tests/sweeps/test_spec.py
    for file in runs:
        config = read_config(file)
        validated(TrainingSettings, config.training, str(file))
        validated(MeasureSettings, config.measure, str(file))


def test_the_hash_of_settings_does_not_depend_on_their_order() -> None:
    assert settings_hash({"a": 1, "b": [2]}) == settings_hash({"b": [2], "a": 1})
    assert settings_hash({"a": 1}) != settings_hash({"a": 2})
    assert len(settings_hash({})) == 8


def test_the_example_of_an_assignment_is_one_that_may_be_given() -> None:
    with pytest.raises(InputError, match=r"write SECTION.KEY=VALUE, for example training.lr=0.1"):
        parse_assignments(["lr=3"], ["training"])
    with pytest.raises(InputError, match=r"for example model.channels=32"):
        parse_assignments(["lr=3"], ["model", "training"])


@pytest.mark.parametrize(
    "text",
    [
        "epochs: 2\nbatch: 8\nepochs: 3\n",
        "{epochs: 2, epochs: 3}\n",
        'a: {x: 1}\nb:\n  - {"y": 1,\n     y: 2}\n',
    ],
)
def test_a_key_that_stands_twice_is_an_error_with_both_lines(tmp_path: Path, text: str) -> None:
    lines = {"epochs: 2": "in lines 1 and 3", "{epochs": "in line 1", "a: {x": "in lines 3 and 4"}
    where = next(where for start, where in lines.items() if text.startswith(start))
    for read in (read_config, read_sweep):
        file = tmp_path / "a.yaml"
        file.write_text(text)
        with pytest.raises(InputError, match=rf"a\.yaml: key '(epochs|y)' stands twice, {where}") as caught:
            read(file)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"--set model\.a=.*: key 'b' stands twice, in line 1"):
        parse_assignments(["model.a={b: 1, b: 2}"], ["model"])


def test_anchors_may_be_merged_and_overridden() -> None:
    text = "base: &base {lr: 0.1, epochs: 2}\nown:\n  <<: *base\n  lr: 0.2\n"
    assert parse_yaml(text)["own"] == {"lr": 0.2, "epochs": 2}


@pytest.mark.parametrize("word", ["on", "yes", "true", "off", "No", "FALSE"])
def test_a_truth_value_is_no_number(word: str) -> None:
    for kind, key in ((MeasureSettings, "images"), (MeasureSettings, "border"), (TrainingSettings, "lr")):
        with pytest.raises(
            InputError, match=f"here: {key} = (True|False): a number is needed; YAML reads on"
        ):
            validated(kind, parse_yaml(f"{key}: {word}"), "here")
    with pytest.raises(InputError, match="a number is needed"):
        validated(MeasureSettings, parse_yaml(f"factors: [0.5, {word}]"), "here")
    with pytest.raises(InputError, match="a number is needed"):
        resolve_options(MODELS["dss_v1"], parse_yaml(f"base: {word}"))
    assert validated(TrainingSettings, parse_yaml(f"nesterov: {word}"), "here").nesterov == (
        word in ("on", "yes", "true")
    )


def test_numbers_are_read_as_they_are_written() -> None:
    numbers = "[1e-3, 1E5, 1.5e+2, .5, 3., -7, +8, 0x1F, 1_000, 010, 0]"
    assert parse_yaml(numbers) == [1e-3, 1e5, 150.0, 0.5, 3.0, -7, 8, 31, 1000, "010", 0]
    assert parse_yaml("[1:30, 1:30.5, 2024-01-02, 0.33:1:9, 12e4x]") == [
        "1:30",
        "1:30.5",
        "2024-01-02",
        "0.33:1:9",
        "12e4x",
    ]
    assert parse_yaml("[.inf, -.INF]") == [math.inf, -math.inf]
    assert validated(TrainingSettings, parse_yaml("lr: 1e-3\nepochs: 010"), "here").epochs == 10
    with pytest.raises(InputError, match="epochs = '1:30'"):
        validated(TrainingSettings, parse_yaml("epochs: 1:30"), "here")
    for text in ("lr: .nan", "lr: .inf", "lr: 1e999"):
        with pytest.raises(InputError, match="lr = "):
            validated(TrainingSettings, parse_yaml(text), "here")


def test_repeated_factors_and_taps_are_one() -> None:
    settings = validated(MeasureSettings, {"factors": [0.5, 1, 0.5], "taps": ["a", "b", "a"]}, "here")
    assert settings.factors == (0.5, 1.0)
    assert settings.taps == ("a", "b")


@pytest.mark.parametrize(
    "values",
    [
        {"factors": []},
        {"taps": []},
        {"factors": [1e-7]},
        {"factors": [65]},
        {"factors": [0.5 + k / 4000 for k in range(1001)]},
        {"border": math.inf},
        {"images": 10**30},
    ],
)
def test_settings_out_of_bounds(values: dict[str, object]) -> None:
    with pytest.raises(InputError):
        validated(MeasureSettings, values, "here")


@pytest.mark.parametrize("text", ["1e-7", "0.5,1e9", "0.5:1:100000000", "0.5:1:1" + "0" * 400, ",", "0.5,,1"])
def test_factors_out_of_bounds_are_refused_before_they_are_made(text: str) -> None:
    with pytest.raises(InputError, match="--factors"):
        parse_factors(text)


def unbounded(schema: object, path: str = "") -> list[str]:
    """Return the numbers of a JSON schema that lack a bound on either side."""
    found = []
    if isinstance(schema, dict):
        if schema.get("type") in ("integer", "number") and "enum" not in schema:
            low = {"minimum", "exclusiveMinimum"} & schema.keys()
            high = {"maximum", "exclusiveMaximum"} & schema.keys()
            found += [] if low and high else [path]
        for key, value in schema.items():
            if key != "default":
                found += unbounded(value, f"{path}.{key}")
    elif isinstance(schema, list):
        for index, value in enumerate(schema):
            found += unbounded(value, f"{path}.{index}")
    return found


CHECKED = {  # numbers whose bounds a validator holds, see the tests above and below
    ".properties.factors.anyOf.0.items",
    ".$defs.SweptTable.properties.factors.anyOf.0.items",
    ".properties.mean.anyOf.0",
    ".properties.mean.anyOf.1.items",
    ".properties.std.anyOf.0",
    ".properties.std.anyOf.1.items",
}


@pytest.mark.parametrize("kind", [TrainingSettings, MeasureSettings, Config, Sweep])
def test_every_number_of_a_file_has_bounds(kind: type[BaseModel]) -> None:
    assert set(unbounded(kind.model_json_schema())) <= CHECKED


def test_every_number_among_the_options_of_models_has_bounds() -> None:
    for name in MODELS.own:
        schema = options_schema(MODELS[name])
        assert set(unbounded(schema.model_json_schema())) <= CHECKED, name
        for key in {"mean", "std"} & schema.model_fields.keys():
            for value in (math.nan, math.inf, 1e7, [1e300], True, [True]):
                with pytest.raises(InputError):
                    resolve_options(MODELS[name], {key: value})
    with pytest.raises(InputError, match="at least 1e-06"):
        resolve_options(MODELS["cnn"], {"std": 1e-30})


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{after}: &{after} [" + ",".join([f"*{before}"] * 10) + "]\n"
    for before, after in itertools.pairwise("abcdefgh")
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BOMB + "model: *h", "more than 100000 values"),
        ("a: &a [*a]", "nested more than 40 levels deep"),
        ("a: " + "[" * 45 + "]" * 45, "nested more than 40 levels deep"),
        ("a: " + "[" * 5000, "not valid YAML|nested too deeply"),
        ("a: 2001-99-99", "not valid YAML|unknown key"),
        ("training: {epochs: " + "9" * 5000 + "}", "not valid YAML"),
        ("model: !!python/object/apply:os.system [ls]", "not valid YAML"),
    ],
    ids=["aliases", "itself", "deep", "very deep", "date", "digits", "code"],
)
def test_what_a_few_lines_of_yaml_stand_for_is_bounded(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=told) as caught:
        read_config(file)
    assert str(caught.value).startswith(f"--config {file}: ")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "value",
    ["x" * 10**5, [["x"] * 1000] * 1000, {"a": {"b": {"c": {}}}}],
    ids=["characters", "lists", "mapping"],
)
def test_a_wrong_value_is_shown_shortened(value: object) -> None:
    with pytest.raises(InputError, match="epochs = ") as caught:
        validated(TrainingSettings, {"epochs": value}, "training")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/a", "-a", ".a", "a b", "a\n", "ä", "x" * 101, "a\0"]
)
def test_a_name_that_becomes_a_path_names_one_entry(name: str) -> None:
    with pytest.raises(ValueError, match="a name is up to 100 letters"):
        file_name(name)


def test_usual_names_become_paths() -> None:
    for name in ("digits-scale-1a2b3c4d", "mnist", "v1.0_b", "x" * 100):
        assert file_name(name) == name
