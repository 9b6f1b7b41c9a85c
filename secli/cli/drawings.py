"""The figures of ``secli equivariance``: which are asked for, whether they can be written, and their drawing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from secli.cli.console import note

if TYPE_CHECKING:
    from secli.cli.results import Measurement
    from secli.records.schema import EquivarianceRecord
    from secli.training.load import Subject


class Drawings(NamedTuple):
    """Files for the drawings that are asked for."""

    curves: Path | None
    heatmap: Path | None
    features: Path | None
    log: bool = False
    labels: Mapping[str, str] = {}
    caption: bool = False
    explained: Path | None = None

    def check(self) -> None:
        """Raise ``InputError`` where one of them cannot be written, or nothing is drawn that the options speak of."""
        from secli.errors import InputError
        from secli.figures.page import caption_file, check_plot_path
        from secli.storage.disk_space import check_file

        for file in (self.curves, self.heatmap, self.features, self.explained):
            if file is not None:
                check_plot_path(file)
                check_file(file)
                if self.caption and file not in (self.features, self.explained):
                    check_file(caption_file(file))
        if self.log and self.curves is None:
            raise InputError("--log: goes with --plot FILE")
        for flag, given in (("--label", self.labels), ("--caption", self.caption)):
            if given and self.curves is None and self.heatmap is None:
                raise InputError(f"{flag}: goes with --plot FILE or --heatmap FILE")

    def check_networks(self, subjects: Sequence[Subject]) -> None:
        """Raise ``InputError`` where features of several networks, or a label of none of them, are asked for."""
        from secli.errors import InputError, UnknownNameError

        if self.features is not None and len(subjects) > 1:
            raise InputError(f"--show-features draws one network, not {len(subjects)}")
        runs = [str(one.run) for one in subjects if one.run is not None]
        known = [*(one.info.name for one in subjects), *runs]
        for name in self.labels:
            if name not in known:
                raise UnknownNameError("network --label", name, known)

    def draw(
        self, records: Sequence[EquivarianceRecord], first: Measurement, device: str, quiet: bool
    ) -> None:
        """Draw the curves of all networks, and the features of the first."""
        from secli.figures.curves import curves_caption, plot_curves
        from secli.figures.explained import plot_explained
        from secli.figures.heatmap import heatmap_caption, plot_heatmap
        from secli.figures.page import write_caption

        labels = self.labels
        ways: dict[str, tuple[Path | None, Callable[[Path], object]]] = {
            "curves": (self.curves, lambda file: plot_curves(records, file, labels=labels, log=self.log)),
            "heat map": (self.heatmap, lambda file: plot_heatmap(records, file, labels=labels)),
            "where the error comes from": (
                self.explained,
                lambda file: plot_explained(records, file, labels=labels),
            ),
            "features": (self.features, lambda file: draw_features(first, records[0], file, device)),
        }
        for what, (file, draw) in ways.items():
            if file is not None:
                draw(file)
                if what == "features" and records[0].surroundings is not None:
                    note("remark: features are drawn of the pictures alone, without what is around them")
                if not quiet:
                    note(f"{what}: {file}")
        captions = ((self.curves, curves_caption), (self.heatmap, heatmap_caption))
        for file, sentences in captions if self.caption else ():
            if file is not None:
                write_caption(file, sentences(records, labels))


def parse_labels(texts: Sequence[str]) -> dict[str, str]:
    """Return the labels of ``NET=TEXT``; a network's name may hold '=' itself, a label may not.

    Raises
    ------
    InputError
        On a text without '=', or with nothing on one side of it.
    """
    from secli.errors import InputError

    found = {}
    for text in texts:
        name, equals, words = text.rpartition("=")
        if not (equals and name.strip() and words.strip()):
            raise InputError(f"--label {text}: is not of the form NET=TEXT")
        found[name.strip()] = words.strip()
    return found


def draw_features(measurement: Measurement, record: EquivarianceRecord, file: Path, device: str) -> None:
    """Draw what Δ is made of, for the first picture and the smallest factor."""
    from secli.datasets.loading import pixels
    from secli.equivariance.feature_maps import feature_views
    from secli.figures.features import plot_views

    subject, pictures, question = measurement
    settings = question.settings
    views = feature_views(
        subject.model,
        pixels(pictures.images[:1]),
        min(row.factor for row in record.rows),
        taps=None if subject.foreign else settings.taps,
        background=settings.background,
        border=0.0 if settings.border is None and pictures.on_black else settings.border,
        device=device,
    )
    title = f"{subject.info.name} ({subject.weights})"
    plot_views(views, file, f"{title}: features at scale factor s = {views.factor:.3g}")
