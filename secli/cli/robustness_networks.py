"""The networks of ``secli robustness``: loaded one by one, so that one which cannot be leaves the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from secli.cli.networks import once_each, read_shapes
from secli.datasets.pictures import open_pictures
from secli.errors import InputError, SecliError, UnknownNameError
from secli.external.load import is_external, suggested_input
from secli.training.load import Foreign, Subject, load_subject


def load_each(
    targets: Sequence[str], seed: int, foreign: Foreign, data: Path, shape: str | None
) -> list[tuple[str, Subject | str]]:
    """Load networks; of one outside the registry that cannot be loaded, the reason stands in its place.

    A network that does not say what images it takes is given the pictures as they are. ``shape`` is the text of
    ``--input``.

    Raises
    ------
    InputError
        When there are no pictures, a name is wrong, options do not fit, or the only network cannot be loaded.
    """
    targets = once_each(targets)
    shapes = read_shapes(shape, targets)
    _check_used(targets, foreign, [only for only in shapes if only is not None], shape)
    _, channels, height, width = open_pictures(data, images=1).images.shape
    found: list[tuple[str, Subject | str]] = []
    for target in targets:
        size = shapes.get(target, shapes.get(None))
        try:
            if is_external(target) and size is None:
                size = suggested_input(target, foreign.weights) or (channels, height, width)
            subject = load_subject(target, None, seed, replace(foreign, input_shape=size))
        except SecliError as error:
            if len(targets) == 1 or _misnamed(target, error):
                raise
            found.append((target, str(error)))
        else:
            found.append((target, subject))
    return found


def _misnamed(target: str, error: SecliError) -> bool:
    """Say whether an error is of a name: of a network that there is not, or of weights that it never had."""
    location = target.partition(":")[0]
    no_file = location.endswith(".py") and not Path(location).is_file()
    return isinstance(error, UnknownNameError) or not is_external(target) or no_file


def _check_used(
    targets: Sequence[str], foreign: Foreign, addressed: Sequence[str], shape: str | None
) -> None:
    """Refuse what is for networks outside the registry where none of them takes it."""
    given = {"--input": shape, "--mean": foreign.mean, "--std": foreign.std}
    for option, value in given.items():
        if value is not None and not any(map(is_external, targets)):
            raise InputError(f"{option}: is for networks outside the registry, leave it out")
    for only in addressed:
        if not is_external(only):
            raise InputError(f"--input: {only} takes the pictures as they are; give no size for it")
