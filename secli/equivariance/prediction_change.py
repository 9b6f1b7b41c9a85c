"""How predictions, probabilities and embeddings change when pictures are rescaled: one formula a function."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def same_prediction(
    logits: Float[Tensor, "n classes"], reference: Float[Tensor, "n classes"]
) -> float | None:
    """Return the share of images whose predicted class is the same in two sets of logits.

    ``1/n Σ_i [argmax_c z_ic = argmax_c z'_ic]``; of equal logits the first counts.

    Parameters
    ----------
    logits, reference : tensor (N, classes)
        Of the same images, rescaled by two factors.

    Returns
    -------
    float or None
        0 to 1; None without images.
    """
    if len(logits) == 0:
        return None
    return float((logits.argmax(1) == reference.argmax(1)).double().mean())


def probability_drop(
    logits: Float[Tensor, "n classes"], reference: Float[Tensor, "n classes"], labels: Int64[Tensor, "n"]
) -> float | None:
    """Return how much of the true class's probability is lost against a reference, in the mean over images.

    ``1/n Σ_i (p(y_i | f_i) − p(y_i | L_s f_i))`` with ``p = softmax(z)``.

    Parameters
    ----------
    logits, reference : tensor (N, classes)
        Of the rescaled images, and of the same images at s = 1.
    labels : tensor (N,)
        The true classes y.

    Returns
    -------
    float or None
        −1 to 1, negative where probability is won; None without images, or where it is not finite.
    """
    true = labels[:, None]
    before, after = (scores.double().softmax(1).gather(1, true) for scores in (reference, logits))
    return _bounded((before - after).mean())


def cosines(embeddings: Float[Tensor, "n d"], reference: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
    """Return the cosine of each image's embedding with that at s = 1.

    ``⟨e_i, e'_i⟩ / (‖e_i‖ ‖e'_i‖)``, computed in float64.

    Parameters
    ----------
    embeddings, reference : tensor (N, D)
        Of the rescaled images, and of the same images at s = 1.

    Returns
    -------
    tensor (N,)
        −1 to 1; NaN where an embedding vanishes: it has no direction.
    """
    one, other = embeddings.double(), reference.double()
    lengths = torch.linalg.vector_norm(one, dim=1) * torch.linalg.vector_norm(other, dim=1)
    return torch.clamp((one * other).sum(1) / lengths, -1, 1)


def mean_cosine(parts: Iterable[Float[Tensor, "_"]]) -> float | None:
    """Return the mean of cosines that came batch by batch; those of embeddings that vanish are left out.

    Parameters
    ----------
    parts : iterable of tensor (n,)
        From :func:`cosines`.

    Returns
    -------
    float or None
        −1 to 1; None where no image has a cosine.
    """
    values = [part[~part.isnan()] for part in parts]
    return _bounded(torch.cat(values).mean()) if values else None


def neighbour(factor: float, factors: Iterable[float]) -> float | None:
    """Return the next of the factors towards 1; None for 1 itself, and where none lies between.

    Parameters
    ----------
    factor : float
        A scale factor s > 0.
    factors : iterable of float
        All factors that were measured.

    Examples
    --------
    >>> neighbour(0.5, [1, 0.8, 0.5, 1.2]), neighbour(1.2, [1, 0.8, 0.5, 1.2]), neighbour(1, [1, 0.8])
    (0.8, 1, None)
    """
    if factor < 1:
        return min((other for other in factors if factor < other <= 1), default=None)
    return max((other for other in factors if 1 <= other < factor), default=None)


def _bounded(mean: Tensor) -> float | None:
    """Return a mean as a number within its range, which rounding may leave; None where it is not finite."""
    value = float(mean)
    return min(1.0, max(-1.0, value)) if math.isfinite(value) else None
