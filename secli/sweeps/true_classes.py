"""The true classes of pictures as a network numbers its outputs, by the names of their folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from secli.datasets.manifest import MANIFEST_FILE
from secli.datasets.pictures import Pictures
from secli.external.categories import WNID, class_names, matched
from secli.external.targets import LIBRARIES
from secli.provenance import names_a_file
from secli.records.notes import Note
from secli.training.load import Subject


def in_classes_of(subject: Subject, pictures: Pictures, outputs: int | None) -> tuple[Pictures, Note | None]:
    """Return pictures with labels that number a network's outputs; without labels, the reason.

    Folders are found by name among the network's categories (:func:`secli.external.categories.class_names`). Where
    these are not known, a folder's place in alphabetical order is its class, if there are as many folders as outputs;
    where a dataset was written by ``secli make-data``, its labels are.

    Parameters
    ----------
    subject : Subject
        The network; one whose weights are drawn at random has no classes yet.
    pictures : Pictures
        With the labels of their folders.
    outputs : int, optional
        How many classes the network tells apart; None: it gives no logits.
    """
    if pictures.labels is None:
        return pictures, Note.of("no-labels")
    target, weights = subject.info.name, subject.info.options.get("weights")
    of_library = target.partition(":")[0] in LIBRARIES
    if subject.fresh and (of_library or not subject.foreign):  # a factory may load weights by itself
        return replace(pictures, labels=None), Note.of("random-weights")
    if outputs is None or (Path(pictures.info.path) / MANIFEST_FILE).exists():
        return pictures, None
    published = weights if of_library and weights is not None and not names_a_file(weights) else None
    known = class_names(target, published, outputs)
    found = matched(pictures.classes, known) if known else ""
    if isinstance(found, list):
        labels = torch.tensor(found)[pictures.labels]
        return replace(pictures, labels=labels, classes=tuple(map(str, range(outputs)))), None
    if found and (published is not None or len(pictures.classes) != outputs):
        unlisted = WNID.fullmatch(found) and not any(map(WNID.fullmatch, known))
        code = "wnid-unknown" if unlisted else "no-such-category"
        return replace(pictures, labels=None), Note.of(code, folder=found, classes=outputs)
    return pictures, None
