"""What of each network is known to be equal to its authors' code, and which test holds it so.

Rows for the page of the models. A row says no more than its tests show: reference vectors in ``tests/golden`` came
out of the published code, whole networks at random weights or single layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Agreement:
    """What is known of some networks.

    Attributes
    ----------
    networks
        Patterns of registry names.
    equal
        What is equal to published code, and how nearly (relative, in the norm over all outputs).
    checked
        The tests, ``file::function``.
    differs
        What differs or is not compared, and why.
    """

    networks: tuple[str, ...]
    equal: str
    checked: tuple[str, ...]
    differs: str

    def speaks_of(self, name: str) -> bool:
        """Whether a network is one of these."""
        return any(fnmatchcase(name, pattern) for pattern in self.networks)


LAYERS = "tests/layers/test_"
WHOLE = "tests/models/test_published.py::test_logits_are_those_of_the_published_code"
STEERABLE = (
    f"{LAYERS}hermite.py::test_bases_agree_with_the_golden_vectors",
    f"{LAYERS}ses.py::test_lift_agrees_with_the_golden_vectors",
    f"{LAYERS}ses.py::test_group_convolution_agrees_with_the_golden_vectors",
)
STRIDED = f"{LAYERS}ses.py::test_strides_agree_with_the_golden_vectors"
SPACES = (
    f"{LAYERS}gaussian.py::test_the_lift_agrees_with_the_golden_vectors",
    f"{LAYERS}dss.py::test_scale_convolution_agrees_with_the_golden_vectors",
)
COLUMNS = f"{LAYERS}columns.py::test_"
BODY = "the body around the layers is not compared as a whole"
NONE = "nothing is compared"

AGREEMENTS = (
    Agreement(
        ("wrn_16_8_ses_a", "wrn_16_8_ses_b"),
        "logits of the whole network on the same weights, to 1e-5 (7e-7 when measured)",
        (WHOLE,),
        "nothing found",
    ),
    Agreement(
        ("wrn_16_8_disco",),
        "logits of the whole network on the same weights and the published basis, to 1e-5 (7e-7 when measured)",
        (WHOLE, f"{LAYERS}disco.py::test_the_fit_on_noise_gives_the_published_basis"),
        "its own basis at 1.41 is fitted in closed form: 0.4 % from the published one, which a sample of pictures gave",
    ),
    Agreement(
        ("wrn_16_8_ses_c",),
        "basis, lift, convolutions with interaction and strides, to 1e-5; its body is that of `wrn_16_8_ses_a`",
        (*STEERABLE, STRIDED),
        "the network is not compared as a whole",
    ),
    Agreement(("mnist_ses_*",), "bases, lift and convolutions, to 1e-5", STEERABLE, BODY),
    Agreement(
        ("mnist_disco_*",),
        "lift and convolutions on a given basis, to 1e-5",
        (
            *STEERABLE[1:],
            f"{LAYERS}disco.py::test_kernels_fitted_on_blurred_pictures_are_known_to_differ",
        ),
        f"the bases at 1.26 and 1.59 are fitted in closed form, the published ones on a sample of pictures; {BODY}",
    ),
    Agreement(("mnist_dss_*", "dss_v1"), "lift and scale convolution, to 1e-5", SPACES, BODY),
    Agreement(
        ("wrn_16_8_dss",),
        "lift and scale convolution with interaction 2, without its top level, to 1e-5",
        SPACES,
        BODY,
    ),
    Agreement(
        ("mnist_ss_*", "wrn_16_8_ss"),
        "filters, kernels and responses of a layer, to 1e-5",
        (f"{LAYERS}scale_steerable.py::test_agrees_with_the_golden_vectors",),
        f"parameters that never enter the computation are left out; {BODY}",
    ),
    Agreement(
        ("mnist_sevf_*",),
        "lift, vector convolution (`turn=against`), pooling and norm, to 1e-5",
        (
            f"{LAYERS}vector_field.py::test_the_layers_agree_with_the_golden_vectors",
            f"{LAYERS}vectors.py::test_they_agree_with_the_golden_vectors",
        ),
        f"parameters of the vector network that are never used are left out; {BODY}",
    ),
    Agreement(
        ("mnist_kanazawa_*",),
        "a layer on planes of 28 and of 14 cells, to 1e-5",
        (f"{LAYERS}locally_invariant.py::test_the_layer_agrees_with_the_golden_vectors",),
        BODY,
    ),
    Agreement(
        ("wrn_16_8_kanazawa",),
        "a layer of stride 1, to 1e-5",
        (f"{LAYERS}locally_invariant.py::test_the_layer_agrees_with_the_golden_vectors",),
        f"layers of stride 2 are not compared; {BODY}",
    ),
    Agreement(
        ("mnist_xu_*",),
        "first and second layer of columns, to 1e-5",
        (f"{COLUMNS}columns_agree_with_the_golden_vectors",),
        f"columns have an axis of their own; {BODY}",
    ),
    Agreement(
        ("wrn_16_8_xu",),
        "the first layer of 3×3 columns, to 1e-5",
        (f"{COLUMNS}small_columns_agree_with_the_golden_vectors",),
        f"columns have an axis of their own; {BODY}",
    ),
    Agreement(
        ("wrn_16_8",),
        "the number of parameters; its body is that of `wrn_16_8_ses_a`",
        ("tests/models/test_wide_resnet.py::test_published_parameters",),
        "the network is not compared as a whole; its convolutions are PyTorch's",
    ),
    Agreement(
        ("mnist_cnn_*",),
        "the number of parameters",
        ("tests/models/test_registry.py::test_declared_parameters_are_real",),
        "the network is not compared as a whole; its convolutions are PyTorch's",
    ),
    Agreement(
        ("cnn", "stn_cnn"),
        NONE,
        (),
        "no reference vectors of the network; its convolutions are PyTorch's",
    ),
    Agreement(
        ("dcn", "dcn_v2"),
        NONE,
        (),
        "no reference vectors of the network; its layer computes what torchvision's operator does",
    ),
    Agreement(
        ("dss_v2", "deform_dss", "so2_cnn", "dss_resnet50", "deform_dss_resnet50"),
        NONE,
        (),
        "no reference vectors",
    ),
    Agreement(
        ("mnist_pyramid_28", "mnist_gaussder_*", "mnist_riesz_28", "mnist_scdcf_28"),
        NONE,
        (),
        "the architecture is ours: there is no published network to compare with",
    ),
    Agreement(
        ("mnist_invarpdes_28",),
        "the number of parameters",
        ("tests/models/test_registry.py::test_declared_parameters_are_real",),
        "no reference vectors; written from the formulas",
    ),
    Agreement(("mnist_invarlayer_28",), NONE, (), "no reference vectors; written from the formulas"),
    Agreement(
        ("mnist_lses_*",),
        NONE,
        (),
        "no reference vectors; at its start it is SESN, which a test compares",
    ),
)
