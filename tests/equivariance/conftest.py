"""Real digits for the ruler's tests."""

import numpy as np
import pytest
import torch
from jaxtyping import Float
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor


@pytest.fixture(scope="session")
def digits() -> Float[Tensor, "40 1 28 28"]:
    """Forty handwritten digits of scikit-learn, resized to 28 pixels with a dark margin of two, in [0, 1]."""
    pictures = []
    for digit in load_digits().images[:40]:
        small = Image.fromarray((digit * 255 / 16).astype(np.uint8))
        pictures.append(np.pad(np.asarray(small.resize((20, 20), Image.Resampling.BICUBIC)), 4))
    return torch.from_numpy(np.stack(pictures)).unsqueeze(1).float() / 255
