"""Shapes and types of all but inner functions are checked in every test (jaxtyping + beartype); random tests repeat."""

import contextlib
import os
import sys
import types
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # pytest-xdist runs one process per core
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ["COLUMNS"] = "120"
os.environ["NO_COLOR"] = "1"

import hypothesis
import pytest
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=25)
hypothesis.settings.load_profile("repeatable")

ROOMS_WITH_TENSORS = (
    "action",
    "datasets",
    "layers",
    "models",
    "external",
    "training",
    "equivariance",
    "bench",
)

if os.environ.get("SECLI_SHAPE_HOOK", "1") == "1":
    # an int is a fine float, as everywhere in Python's typing (PEP 484)
    full_check = beartype(conf=BeartypeConf(is_pep484_tower=True))

    def check(function: Any) -> Any:
        """Check a function or class; one made inside another would be compiled anew in every call of that."""
        return function if "<locals>" in getattr(function, "__qualname__", "") else full_check(function)

    checker = types.ModuleType("secli_shape_checker")
    checker.check = check  # type: ignore[attr-defined]
    sys.modules[checker.__name__] = checker
    install_import_hook([f"secli.{room}" for room in ROOMS_WITH_TENSORS], "secli_shape_checker.check")


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_in_the_users_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give the session a cache of its own, in which MNIST is found if the user has it; its processes share it."""
    from secli.sources.files import cache_directory

    session = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent
    cache, mnist = session / "shared-cache", cache_directory() / "mnist"
    cache.mkdir(exist_ok=True)
    if mnist.is_dir():
        with contextlib.suppress(FileExistsError):
            (cache / "mnist").symlink_to(mnist.resolve())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECLI_CACHE", str(cache))
        yield


@pytest.fixture(autouse=True)
def _same_random_numbers_in_any_order() -> None:
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="module")
def _described_once() -> Iterator[None]:
    """Describe each model of the registry once for the tests of one file: building all of them takes seconds."""
    from functools import lru_cache

    import secli.models.describe

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secli.models.describe, "describe", lru_cache(secli.models.describe.describe))
        yield
