"""How a network classifies rescaled images: a row per factor of accuracy, and of how predictions change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Float, Int64
from torch import Tensor

from secli.equivariance.prediction_change import mean_cosine, neighbour, probability_drop, same_prediction
from secli.records.notes import Note
from secli.records.schema import AccuracyRow


def accuracy_rows(
    factors: Sequence[float],
    logits: Mapping[float, Float[Tensor, "n _"] | None],
    labels: Int64[Tensor, "n"] | None,
    classes: int | None,
    why: Note | None = None,
    cosines: Mapping[float, Sequence[Float[Tensor, "_"]]] | None = None,
) -> list[AccuracyRow]:
    """Return how the images rescaled by each factor are classified, and how that differs from other factors.

    Parameters
    ----------
    factors : sequence of float
        Those that get a row.
    logits : mapping
        The logits of the rescaled images by factor, 1 among them; those at other factors than ``factors`` count as
        neighbours.
    labels : tensor (N,), optional
        The true classes.
    classes : int, optional
        How many classes the images have; None: at least those in ``labels``. A network with another number of outputs
        has no accuracy.
    why : Note, optional
        The reason for missing logits, where it is known.
    cosines : mapping, optional
        The cosines of the embeddings with those at s = 1, batch by batch, by factor.
    """
    known = [factor for factor, found in logits.items() if found is not None]
    rows = []
    for factor in factors:
        row = _row(factor, logits[factor], logits[1.0], labels, classes, why)
        near = neighbour(factor, known)
        own, other = logits[factor], None if near is None else logits[near]
        consistency = None if own is None or other is None else same_prediction(own, other)
        cosine = mean_cosine((cosines or {}).get(factor, ()))
        rows.append(row.model_copy(update={"consistency": consistency, "cosine": cosine}))
    return rows


def _row(
    factor: float,
    logits: Float[Tensor, "n classes"] | None,
    reference: Float[Tensor, "n classes"] | None,
    labels: Int64[Tensor, "n"] | None,
    classes: int | None,
    why: Note | None,
) -> AccuracyRow:
    """Return how the images at one factor are classified; ``reference`` are the logits at s = 1."""
    if logits is None or reference is None:
        gone = why or Note.of("no-logits")
        return AccuracyRow(factor=factor, accuracy=None, agreement=None, n=0, reason=gone)
    accuracy: float | None = None
    drop: float | None = None
    reason: Note | None = None
    outputs = logits.shape[1]
    if labels is None:
        reason = Note.of("no-labels")
    elif (count := classes or int(labels.max()) + 1) > outputs or classes not in (None, outputs):
        reason = Note.of("other-classes", outputs=outputs, classes=count)
    else:
        accuracy = float((logits.argmax(1) == labels).double().mean())
        drop = probability_drop(logits, reference, labels)
    return AccuracyRow(
        factor=factor,
        accuracy=accuracy,
        agreement=same_prediction(logits, reference),
        probability_drop=drop,
        n=len(logits),
        reason=reason,
    )
