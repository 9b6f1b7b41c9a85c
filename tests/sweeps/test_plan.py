"""From a sweep to its runs: the grid against a literal expansion, exclusions, what makes a key and what does not."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from secli.catalogue import MODELS
from secli.config import TrainingSettings
from secli.datasets.protocols import DATASETS
from secli.errors import InputError
from secli.sources.contract import Request
from secli.sources.registry import SOURCES, read_source
from secli.sweeps.model_check import Fitting
from secli.sweeps.plan import (
    SOURCE_SHAPES,
    DatasetRequest,
    PlannedRun,
    Shape,
    known_shape,
    matches,
    plan,
    run_folder,
)
from tests.sweeps.conftest import sweep_of

MODELS_28 = ["mnist_cnn_28", {"name": "dss_v1", "options": {"base": 1.5}, "training": {"lr": 0.5}}]
MNIST = [{"name": "mnist-scale", "realisations": "0-1"}]


def one(**keys: Any) -> PlannedRun:
    (run,) = plan(sweep_of(**keys))
    return run


def test_the_grid_is_every_crossing_in_the_order_of_the_file() -> None:
    grid = {"training.augment": ["none", "scale"], "training.weight_decay": [0, 0.1, 0.2]}
    runs = plan(
        sweep_of(models=MODELS_28, datasets=[*MNIST, "digits-scale"], seeds=[3, 1], grid=grid), threads=2
    )
    literal = []
    for model in ("mnist_cnn_28", "dss_v1"):
        for dataset, realisations in (("mnist-scale", (0, 1)), ("digits-scale", (0,))):
            for augment in ("none", "scale"):
                for decay in (0, 0.1, 0.2):
                    for realisation in realisations:
                        for seed in (3, 1):
                            literal.append((model, dataset, augment, decay, realisation, seed))
    found = []
    for run in runs:
        training = run.resolved.training
        place = (run.data.name, training.augment, training.weight_decay, run.data.realisation, run.seed)
        found.append((run.model.name, *place))
        assert training.threads == 2
        assert (training.epochs, training.batch) == (2, 16)
        assert training.lr == (
            0.5 if run.model.name == "dss_v1" else MODELS[run.model.name].training.get("lr", 0.01)
        )
    assert found == literal
    assert len({run.key("digest") for run in runs}) == len(runs)


def test_what_wins_over_what() -> None:
    """Command line > grid > model's own > block's > the catalogue's > --threads."""
    model: dict[str, Any] = {"name": "cnn", "options": {"mean": 0.1}, "training": {"lr": 0.2, "epochs": 5}}
    keys: dict[str, Any] = {
        "models": [model],
        "options": {"mean": 0.3, "widths": [2, 2, 2, 2]},
        "training": {"lr": 0.1, "batch": 7, "threads": 3},
    }
    run = one(**keys)
    assert (run.resolved.options["mean"], run.resolved.options["widths"]) == (0.1, [2, 2, 2, 2])
    assert (run.resolved.training.lr, run.resolved.training.batch, run.resolved.training.threads) == (
        0.2,
        7,
        3,
    )
    run = one(**keys, grid={"model.mean": [0.7], "training.lr": [0.9]})
    assert (run.resolved.options["mean"], run.resolved.training.lr) == (0.7, 0.9)
    (run,) = plan(sweep_of(**keys), threads=1, overrides={"lr": 0.4, "threads": 2})
    assert (run.resolved.training.lr, run.resolved.training.threads, run.resolved.training.epochs) == (
        0.4,
        2,
        5,
    )


def test_exclusions_match_all_their_keys_with_patterns_and_lists() -> None:
    grid = {"training.augment": ["none", "scale"]}
    keys: dict[str, Any] = {
        "models": ["mnist_ses_scalar_28", "mnist_ses_scalar_28p", "dss_v1"],
        "datasets": MNIST,
    }

    def left(*exclude: dict[str, Any]) -> list[tuple[str, str, int]]:
        runs = plan(sweep_of(**keys, grid=grid, exclude=list(exclude)))
        return [(run.model.name, run.resolved.training.augment, run.data.realisation) for run in runs]

    every = left()
    assert len(every) == 12
    assert left({"model": "*28p", "training.augment": "none"}) == [
        run for run in every if not (run[0].endswith("28p") and run[1] == "none")
    ]
    assert left({"model": ["dss_v1", "*28"], "realisation": 1}) == [
        run for run in every if not (run[0] in ("dss_v1", "mnist_ses_scalar_28") and run[2] == 1)
    ]
    # an option that one of the models has, and the others have not
    assert left({"model.base": 2}) == [run for run in every if run[0] != "dss_v1"]
    with pytest.raises(InputError, match=r"no run is left; its exclusions match all"):
        left({"model": "*"})
    with pytest.raises(InputError, match=r"no run has 'model.bse'; did you mean 'model.base'"):
        left({"model.bse": 2})


def test_a_setting_that_is_a_list_is_matched_whole() -> None:
    run = one(training={"milestones": [5, 8]})
    assert matches(run, {"training.milestones": [5, 8]})
    assert matches(run, {"training.milestones": [[5, 8], [1, 2]]})
    assert not matches(run, {"training.milestones": [5]})
    assert not matches(run, {"training.nesterov": 0})  # no is not 0
    assert matches(run, {"training.nesterov": False, "seed": 0})
    assert not matches(run, {"nothing": 0})


@pytest.mark.parametrize(
    "keys",
    [
        {"models": ["cnn", "cnn"]},
        {"seeds": [1, 1]},
        {"datasets": ["digits-scale", {"name": "digits-scale", "realisations": [0]}]},
        {"grid": {"training.lr": [0.1, 0.1]}},
        {"models": ["cnn", {"name": "cnn", "options": {"mean": 0.0607}}]},  # that is the default
        {"parts": [{"tag": "a"}, {"tag": "b"}, {"tag": "b"}]},
    ],
)
def test_a_run_that_is_listed_twice_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="is listed twice"):
        plan(sweep_of(**keys))


def test_two_blocks_may_share_a_run_where_they_measure_the_same() -> None:
    measured = {"images": 5}
    a, b = plan(sweep_of(parts=[{"tag": "a", "measure": measured}, {"tag": "b"}]))
    assert a.key("d") == b.key("d")
    with pytest.raises(InputError, match=r"blocks 'a' and 'b', which measure it in different ways"):
        plan(sweep_of(parts=[{"tag": "a", "measure": measured}, {"tag": "b", "measure": {"images": 6}}]))


# ---- keys


def test_equal_settings_give_the_equal_key_however_they_are_written() -> None:
    base = one(training={"epochs": 60, "batch": 32, "milestones": [20, 40], "optimizer": "sgd", "gamma": 0.5})
    assert one(training=None).key("d") == base.key("d")  # the defaults, written out
    assert one(training=None, options={"classes": 10}).key("d") == base.key("d")
    assert one(training=None, tag="block", name="other").key("d") == base.key("d")


CHANGED = {
    "accumulate": 2,
    "augment": "scale",
    "batch": 17,
    "centre": "corner",
    "checkpoint_activations": True,
    "compile": True,
    "devices": 2,
    "epochs": 3,
    "gamma": 0.3,
    "lr": 0.02,
    "milestones": [1],
    "momentum": 0.5,
    "nesterov": True,
    "optimizer": "adam",
    "pad": "mean",
    "precision": "bf16",
    "threads": 2,
    "weight_decay": 0.1,
}


def test_every_training_setting_is_tried_below() -> None:
    assert set(CHANGED) | {"seed", "device"} == set(TrainingSettings.model_fields)


@pytest.mark.parametrize("name", CHANGED)
def test_each_training_setting_changes_the_key(name: str) -> None:
    training: dict[str, Any] = {"epochs": 2, "batch": 16, "optimizer": "sgd"}
    keys: dict[str, Any] = {"training": training}
    if name == "pad":  # only this augmentation pads
        keys |= {"models": ["wrn_16_8"], "datasets": ["stl10"], "training": {**training, "augment": "stl10"}}
    if name == "centre":  # only this augmentation rescales
        keys |= {"training": {**training, "augment": "scale"}}
    changed = keys | {"training": {**keys["training"], name: CHANGED[name]}}
    assert one(**changed).key("d") != one(**keys).key("d")


def test_each_option_the_data_and_the_seed_change_the_key_and_the_device_does_not() -> None:
    runs = [
        one(),
        one(seeds=[1]),
        one(models=["cnn"]),
        one(models=["dcn"]),
        one(models=[{"name": "cnn", "options": {"mean": 0.5}}]),
        one(datasets=["digits-scale"]),
        one(datasets=[{"name": "digits-scale", "realisations": [1]}]),
        one(datasets=[{"name": "digits-scale", "factors": [0.4, 1]}]),
        one(datasets=["digits"]),
    ]
    keys = [run.key("d") for run in runs] + [runs[0].key("e")]
    assert len(set(keys)) == len(keys)
    device = {"epochs": 2, "batch": 16, "device": "cuda", "milestones": []}
    assert one(training=device).key("d") == keys[0]


def test_an_option_that_a_later_version_adds_changes_no_key() -> None:
    """What stands at its default is not part of the key; the folder says so."""
    run = one()
    identity = run.identity()
    assert identity["options"] == {"widths": [2, 2, 2, 2]}
    usual = {"optimizer": "sgd", "gamma": 0.5}  # what the catalogue says of this network
    assert identity["training"] == {"batch": 16, "epochs": 2, "milestones": [], "threads": 1, **usual}
    assert str(run_folder(run, "d")) == f"cnn/digits-scale-r0-s0-{run.key('d')}"


# ---- what cannot work


def test_what_cannot_be_built_or_does_not_fit_is_refused_by_name() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {"models": [{"name": "cnn", "options": {"width": 3}}]},
            "unknown key 'width'; did you mean 'widths'",
        ),
        ({"models": [{"name": "dss_v1", "options": {"base": float("nan")}}]}, "base = nan"),
        (
            {"models": ["mnist_ses_scalar_28"], "datasets": [{"name": "digits", "image_size": 32}]},
            "image_size is 28",
        ),
        (
            {"models": ["mnist_ses_scalar_28"], "datasets": ["cifar10"]},
            "in_channels is 1, but cifar10 needs 3",
        ),
        ({"models": [{"name": "cnn", "options": {"classes": 7}}]}, "classes is 7, but digits-scale needs 10"),
        ({"datasets": [{"name": "digits-scale", "sizes": [0, 0, 1]}]}, "at least 1 training"),
        ({"datasets": [{"name": "digits-scale", "factors": [2, 1]}]}, "the lowest factor comes first"),
        ({"training": {"nesterov": True, "optimizer": "sgd", "momentum": 0}}, "momentum greater than 0"),
    ]
    for keys, message in cases:
        with pytest.raises(InputError) as caught:
            plan(sweep_of(**keys))
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="the sweep's file says the seeds"):
        plan(sweep_of(), overrides={"seed": 3})


def test_a_size_that_a_network_cannot_take_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    tried: list[tuple[int, int]] = []
    fitting = Fitting()
    fitting.check(plan(sweep_of(seeds=[0, 1])), known_shape, lambda done, total: tried.append((done, total)))
    fitting.check(plan(sweep_of(seeds=[2])), known_shape, lambda done, total: tried.append((done, total)))
    assert tried == [(0, 1)]  # one network, tried once
    too_small = plan(sweep_of(models=["mnist_cnn_28"], datasets=[{"name": "digits", "image_size": 28}]))
    fitting.check(too_small, known_shape)
    with pytest.raises(InputError, match=r"image_size = 2: input should be greater than or equal to 24"):
        plan(sweep_of(models=[{"name": "mnist_cnn_28", "options": {"image_size": 2}}], datasets=["digits"]))
    # the network itself: nothing but its own forward pass says which sizes it takes
    monkeypatch.setattr("secli.sweeps.model_check.build", lambda *_: torch.nn.Conv2d(1, 10, 5))
    small = plan(sweep_of(datasets=[{"name": "digits", "image_size": 2}]))
    with pytest.raises(
        InputError, match=r"digits: model cnn cannot take its 1×2×2 images \(.*[Kk]ernel size"
    ):
        fitting.check(small, known_shape)
    augmented = plan(sweep_of(training={"augment": "stl10"}))
    with pytest.raises(InputError, match=r"training.augment = stl10 .* not 1×28×28"):
        fitting.check(augmented, known_shape)
    fitting.check(too_small, lambda data: None)  # nobody knows yet
    with pytest.raises(InputError, match="classes is 10, but digits needs 3"):
        fitting.check(too_small, lambda data: Shape(1, 28, 28, 3))


def test_known_shapes_are_those_of_the_sources() -> None:
    assert set(SOURCE_SHAPES) == {source.name for source in SOURCES.values() if source.published}
    raw = read_source("digits", Request())
    assert SOURCE_SHAPES["digits"] == (1, raw.images.shape[1], len(raw.classes))
    for name, source in itertools.product(DATASETS, ("digits",)):
        if DATASETS[name].source == source:
            assert known_shape(DatasetRequest(name, 0)) == Shape(1, 28, 28, 10)
    assert known_shape(DatasetRequest("folder", 0)) is None
    assert known_shape(DatasetRequest("stl10", 0, image_size=48)) == Shape(3, 48, 48, 10)


def test_the_measure_takes_the_unscaled_twin_in_the_same_sizes() -> None:
    (run,) = plan(sweep_of(measure={"images": 3}))
    assert run.measure is not None
    assert run.measure.on == DatasetRequest("digits", 0, sizes=(64, 20, 30))
    (run,) = plan(sweep_of(measure={"data": "mnist"}))
    assert run.measure is not None
    assert run.measure.on == DatasetRequest("mnist", 0)


def test_a_run_is_told_by_what_sets_it_apart() -> None:
    runs = plan(sweep_of(grid={"training.augment": ["none", "scale"], "model.mean": [0.5]}))
    assert [run.title for run in runs] == [
        f"cnn widths=[2, 2, 2, 2] augment={augment} mean=0.5 digits-scale r0 s0"
        for augment in ("none", "scale")
    ]


def test_an_exclusion_that_matches_no_run_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"exclude: \{'model': 'cmn'\} matches no run; is a name misspelled\?"
    ):
        plan(sweep_of(models=["cnn", "dcn"], exclude=[{"model": "cmn"}]))
    # one that stands for all blocks has to match in one of them
    parts = [{"tag": "a", "models": ["cnn", "dcn"]}, {"tag": "b", "models": ["dss_v1"]}]
    assert len(plan(sweep_of(parts=parts, exclude=[{"model": "dcn"}]))) == 2
