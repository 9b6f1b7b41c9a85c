"""Shapes and types are checked at run time in every test (jaxtyping + beartype); random tests are repeatable."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["COLUMNS"] = "120"
os.environ["NO_COLOR"] = "1"

import hypothesis  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=25)
hypothesis.settings.load_profile("repeatable")

if os.environ.get("SECLI_SHAPE_HOOK", "1") == "1":
    install_import_hook(
        ["secli.scaling", "secli.fields", "secli.layers", "secli.models", "secli.datasets", "secli.training", "secli.equivariance"],
        "beartype.beartype",
    )
