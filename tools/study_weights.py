"""Rename the weights that a first study of deformable scale spaces published, so that ``--weights`` takes them.

The study's CNN, DCN v1 and DCN v2 are the registry's ``cnn``, ``dcn`` and ``dcn_v2``, under other names::

    conv1, conv2, conv3, conv4            block1.conv … block4.conv
    bn1 … bn4                             block1.norm … block4.norm
    dconv_1, dconv_2                      block3.conv, block4.conv
    conv_3, conv_4                        block3.conv.offset, block4.conv.offset                  (v1)
    dconv_N.conv_offset_mask              block3.conv.offset, block4.conv.offset                  (v2)
    fc                                    logits.classify

Offsets come first, row and column in turn, group by group, then the masks: the order of the registry's own. A bias
that the study's layer lacks is zero. Its networks take pixels in [0, 1] without normalisation, its offsets have 10
groups, and its DCN v2 has a bias in the third convolution::

    python tools/study_weights.py cnn THEIRS.safetensors cnn.safetensors
    secli equivariance cnn --weights cnn.safetensors --set model.mean=0 --set model.std=1 …

The tool prints the options that the other networks need.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, zeros

PLAIN = {"mean": "0", "std": "1"}
GROUPS = {**PLAIN, "deformable_groups": "10"}
OPTIONS = {"cnn": PLAIN, "dcn": GROUPS, "dcn_v2": {**GROUPS, "third_bias": "true"}}
"""By registry name, the options that make it the study's network."""

_COMMON = {
    "conv1": "block1.conv",
    "conv2": "block2.conv",
    **{f"bn{i}": f"block{i}.norm" for i in range(1, 5)},
    "fc": "logits.classify",
}
MODULES = {
    "cnn": {**_COMMON, "conv3": "block3.conv", "conv4": "block4.conv"},
    "dcn": {
        **_COMMON,
        "dconv_1": "block3.conv",
        "conv_3": "block3.conv.offset",
        "dconv_2": "block4.conv",
        "conv_4": "block4.conv.offset",
    },
    "dcn_v2": {
        **_COMMON,
        "dconv_1": "block3.conv",
        "dconv_1.conv_offset_mask": "block3.conv.offset",
        "dconv_2": "block4.conv",
        "dconv_2.conv_offset_mask": "block4.conv.offset",
    },
}
"""By registry name: the study's modules, and the registry's."""
ABSENT = {"dcn": {"block3.conv.offset.bias": "block3.conv.offset", "block4.conv.bias": "block4.conv"}}
"""Biases that the study's network does not have, and whose outputs they would be added to."""


def renamed(state: Mapping[str, Tensor], model: str) -> dict[str, Tensor]:
    """Return the weights under the registry's names.

    Parameters
    ----------
    state : mapping
        The study's, by its names.
    model : "cnn", "dcn" or "dcn_v2"
        Registry name.

    Raises
    ------
    ValueError
        When a name is not among those of the study's network.
    """
    found = {}
    for name, value in state.items():
        module, _, kind = name.rpartition(".")
        if module not in MODULES[model]:
            raise ValueError(f"'{name}' is not a tensor of the study's {model}")
        found[f"{MODULES[model][module]}.{kind}"] = value
    for bias, module in ABSENT.get(model, {}).items():
        if f"{module}.weight" in found:
            found.setdefault(bias, zeros(len(found[f"{module}.weight"])))
    return found


def main() -> None:
    """Read, rename, write, and say how to measure."""
    parser = argparse.ArgumentParser(description="Rename the study's weights for --weights.")
    parser.add_argument("model", choices=list(MODULES))
    parser.add_argument("theirs", type=Path, help="safetensors with the study's names")
    parser.add_argument("ours", type=Path, help="safetensors to write")
    given = parser.parse_args()
    try:
        save_file(renamed(load_file(given.theirs), given.model), given.ours)
    except (OSError, SafetensorError, ValueError) as error:
        sys.exit(f"{given.theirs}: {error}")
    sets = " ".join(f"--set model.{key}={value}" for key, value in OPTIONS[given.model].items())
    print(f"secli equivariance {given.model} --weights {given.ours} {sets}")


if __name__ == "__main__":
    main()
