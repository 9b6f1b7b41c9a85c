"""The dataset protocols: one entry each; what a protocol needs beyond these fields is one file of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from secli.datasets.transforms import TRANSFORMS
from secli.errors import InputError
from secli.registry import Registry

Sizes = tuple[int, int, int]
Factors = tuple[float, float]


@dataclass(frozen=True)
class Parameters:
    """The parameters of a protocol that can be chosen.

    A parameter that is added later has a default. Where it has that value, it is neither written nor hashed, so that
    older datasets keep their folders and are read as they are.

    Attributes
    ----------
    factors
        Lowest and highest scale factor, drawn uniformly; None: the images are untouched.
    sizes
        Images in train, val and test; None: those of the source's own parts, or 60, 10 and 30 % of it.
    image_size
        Side in pixels to which the source's pictures are brought; None: they are taken as they are.
    """

    factors: Factors | None
    sizes: Sizes | None
    image_size: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return them as JSON has them."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        defaults = {each.name: each.default for each in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value != defaults[name]  # MISSING differs from every value
        }

    def written_as(self, parameters: Mapping[str, Any]) -> bool:
        """Return whether a manifest's parameters are these; what it leaves out has its default."""
        defaults = {each.name: each.default for each in fields(self) if each.default is not MISSING}
        return {**defaults, **parameters} == {**defaults, **self.as_dict()}


@dataclass(frozen=True)
class DatasetSpec:
    """A published recipe from a source to a dataset.

    Attributes
    ----------
    name
        Registry name, and the folder of the standard dataset.
    source
        Registry name of the source.
    paper
        Who published the recipe.
    factors, sizes, image_size
        The standard parameters.
    official
        Whether the source's own parts are kept (test images come from its test part); otherwise all its
        pictures are pooled and split anew.
    digests
        JSON file of this package with the published digests that standard realisations must have.
    preview
        ``"module:function"`` that draws a figure of a dataset.
    on_black
        Whether the background is black, so that no frame appears when the pictures shrink; photographs have none.
    transform
        What is done to each picture by a number from the range ``factors`` (``secli.datasets.transforms``).
    """

    name: str
    source: str
    summary: str
    paper: str
    factors: Factors | None = None
    sizes: Sizes | None = None
    image_size: int | None = None
    official: bool = False
    digests: str | None = None
    preview: str = "secli.datasets.preview:samples_by_factor"
    on_black: bool = False
    transform: str = "scale"

    @property
    def standard(self) -> Parameters:
        """The standard parameters."""
        return Parameters(self.factors, self.sizes, self.image_size)

    def parameters(
        self, factors: Factors | None = None, sizes: Sizes | None = None, image_size: int | None = None
    ) -> Parameters:
        """Return the standard parameters with the user's instead where given.

        Raises
        ------
        InputError
            When a value is out of range, or the protocol does not rescale and factors are given.
        """
        if factors is not None:
            _check_factors(self, factors)
        if sizes is not None:
            _check_sizes(sizes)
        if image_size is not None and not 1 <= image_size <= MAX_SIDE:
            raise InputError(f"--image-size {image_size}: a side of 1 to {MAX_SIDE} pixels is needed")
        return Parameters(factors or self.factors, sizes or self.sizes, image_size or self.image_size)

    def folder(self, parameters: Parameters, source_digest: str | None = None) -> str:
        """Return the dataset's folder name: the protocol's own, or one with a hash of what differs.

        ``source_digest`` is that of a source that is not the same for everyone.
        """
        if parameters == self.standard and source_digest is None:
            return self.name
        from secli.config import settings_hash  # brings pydantic, which 'secli --help' must not wait for

        return f"{self.name}-{settings_hash({**parameters.as_dict(), 'source': source_digest})}"


MAX_SIDE = 4096
MAX_IMAGES = 100_000_000


def _check_factors(spec: DatasetSpec, factors: Factors) -> None:
    low, high = factors
    given = f"--factors {low:g} {high:g}"
    if spec.factors is None:
        raise InputError(f"{given}: {spec.name} does not rescale its images; use a '-scale' dataset")
    try:
        TRANSFORMS[spec.transform].check(factors)
    except ValueError as error:
        raise InputError(f"{given}: {error}") from None
    if not low <= high:
        raise InputError(f"{given}: the lowest factor comes first")


def _check_sizes(sizes: Sizes) -> None:
    train, val, test = sizes
    if max(sizes) > MAX_IMAGES:
        raise InputError(f"--sizes {train} {val} {test}: at most {MAX_IMAGES} images are made of one split")
    if train < 1 or val < 0 or test < 1:
        raise InputError(
            f"--sizes {train} {val} {test}: at least 1 training and 1 test image are needed, val may be 0"
        )


SESN = "Sosnovik, Szmaja, Smeulders, Scale-Equivariant Steerable Networks, ICLR 2020"
SAME = f"the recipe of mnist-scale ({SESN})"
OWN = "one's own pictures"
MNIST_SIZES = (10_000, 2_000, 50_000)
DIGITS_SIZES = (1_000, 200, 597)
CIFAR_SIZES = (10_000, 2_000, 48_000)
FACTORS = (0.3, 1.0)

DATASETS: Registry[DatasetSpec] = Registry(
    "dataset",
    [
        DatasetSpec(
            "mnist-scale",
            "mnist",
            "MNIST digits shrunk by a random factor; the standard of the field, bit for bit",
            SESN,
            FACTORS,
            MNIST_SIZES,
            digests="mnist-scale.json",
            on_black=True,
        ),
        DatasetSpec(
            "digits-scale",
            "digits",
            "small digits, built in, rescaled",
            SAME,
            FACTORS,
            DIGITS_SIZES,
            28,
            on_black=True,
        ),
        DatasetSpec(
            "fashion-scale",
            "fashion-mnist",
            "pictures of clothes, rescaled",
            SAME,
            FACTORS,
            MNIST_SIZES,
            on_black=True,
        ),
        DatasetSpec("cifar10-scale", "cifar10", "small photographs, rescaled", SAME, FACTORS, CIFAR_SIZES),
        DatasetSpec("folder-scale", "folder", "one's own pictures, rescaled", SAME, FACTORS, official=True),
        DatasetSpec(
            "mnist",
            "mnist",
            "the same splits as mnist-scale, untouched",
            SAME,
            sizes=MNIST_SIZES,
            on_black=True,
        ),
        DatasetSpec(
            "digits",
            "digits",
            "the same splits as digits-scale, untouched",
            SAME,
            None,
            DIGITS_SIZES,
            28,
            on_black=True,
        ),
        DatasetSpec(
            "fashion-mnist",
            "fashion-mnist",
            "as fashion-scale, untouched",
            SAME,
            sizes=MNIST_SIZES,
            on_black=True,
        ),
        DatasetSpec("cifar10", "cifar10", "as cifar10-scale, untouched", SAME, sizes=CIFAR_SIZES),
        DatasetSpec("folder", "folder", "one's own pictures, untouched", OWN, official=True),
        DatasetSpec(
            "stl10",
            "stl10",
            "photographs, 96×96, in the official split; augmented in training",
            "Coates, Ng, Lee, An Analysis of Single-Layer Networks in Unsupervised Feature Learning, AISTATS 2011",
            sizes=(5_000, 0, 8_000),
            official=True,
            preview="secli.datasets.preview:augmentation_stages",
        ),
    ],
)


def unscaled_twin(name: str) -> str | None:
    """Return the dataset with the same pictures and splits at their own scale; None where there is none.

    Examples
    --------
    >>> unscaled_twin("fashion-scale"), unscaled_twin("stl10")
    ('fashion-mnist', 'stl10')
    """
    source = DATASETS[name].source
    return next(
        (each.name for each in DATASETS.values() if each.source == source and each.factors is None), None
    )
