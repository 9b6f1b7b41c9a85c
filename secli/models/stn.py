"""The plain network of the scale curves behind a spatial transformer.

Source: Jaderberg, Simonyan, Zisserman, Kavukcuoglu, "Spatial Transformer Networks", NeurIPS 2015.
"""

from __future__ import annotations

from torch import nn

from secli.action.fields import Plane
from secli.layers.spatial_transformer import SpatialTransformer
from secli.models.cnn import WIDTHS, cnn
from secli.models.contract import Stage, StagedModel
from secli.models.entrance import chain, entrance
from secli.models.options import Classes, InChannels, Mean, PerChannel, Std, Widths

CELLS = 4  # the localiser's output has 4×4 cells, whatever the image size


def stn_cnn(
    in_channels: InChannels = 1,
    classes: Classes = 10,
    mean: Mean = 0.0607,
    std: Std = 0.2161,
    widths: Widths = WIDTHS,
) -> StagedModel:
    """Return cnn behind a spatial transformer: each picture is first moved by an affine map that it asks for itself.

    Two 5×5 convolutions, an average over 4×4 cells and one linear layer give the six numbers; at the start the map is
    the identity, and the network is cnn. Pixels are moved before they are normalised, so that what comes in from
    outside is black, as around a shrunk picture. Any image size.

    Notes
    -----
    The tap ``transformed`` is declared a plane, as it is at the start. Of a transformer that learned to undo scaling
    its features do not change with s, which by this field is far from equivariant, as it should be.
    """
    transformer = SpatialTransformer(localiser(in_channels, mean, std), 10 * CELLS**2)
    body = cnn(in_channels, classes, mean, std, widths)
    stages = [Stage(tap, module, body.taps[tap]) for tap, module in body.stages]
    return StagedModel([Stage("transformed", transformer, Plane()), *stages])


def localiser(in_channels: int, mean: PerChannel, std: PerChannel) -> nn.Sequential:
    """Return the localiser: two 5×5 convolutions to 8 and 10 channels, averaged to 4×4 cells."""
    return chain(
        **entrance(in_channels, mean, std),
        conv1=nn.Conv2d(in_channels, 8, 5, padding=2),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2, ceil_mode=True),
        conv2=nn.Conv2d(8, 10, 5, padding=2),
        relu2=nn.ReLU(),
        pool2=nn.AdaptiveAvgPool2d(CELLS),
    )
