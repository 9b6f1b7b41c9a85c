"""Why a value is missing, and what a reader of one must know: the codes that records hold, and their words.

Data stand in braces with the format of numbers: ``d`` whole, ``.2g``, ``.1%``; ``, `` and ``×`` join a list of whole
numbers; without a format it is text.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Code(NamedTuple):
    """One code.

    Attributes
    ----------
    words
        The template of its words.
    means
        What it means, in a sentence.
    examples
        Data that only give an example: notes that differ in these alone say the same.
    """

    words: str
    means: str
    examples: tuple[str, ...] = ()


_UNPLACED = (
    "its cells cannot be placed in the image ({}); declare it, for example --field '{{tap}}=channels-last' or "
    "'{{tap}}=plane,stride=4,origin=1.5'"
)
_TANGENT = (
    "{{operator}}: its forward-mode derivative {} by a finite difference, so no Lie derivative can be measured through "
    "it; give it an operator that forward mode differentiates, or leave the Lie derivative out"
)


def _unplaced(why: str, means: str) -> Code:
    return Code(_UNPLACED.format(why), means, ("tap",))


GROUPS: Final[dict[str, dict[str, Code]]] = {
    "The error of a tap": {
        "too-few-cells": Code(
            "the picture covers {cells:.2g} cells of this tap, fewer than {least:g}",
            "The map is too small at this factor: so few cells have no comparable scale.",
        ),
        "no-level-maps": Code(
            "no scale level of this tap maps onto another at this factor (0 of {levels:d})",
            "The factor takes every level off the stack.",
        ),
        "no-level-large-enough": Code(
            "no scale level of this tap maps onto another at this factor (0 of {levels:d}) on which the picture covers "
            "{least:g} cells",
            "Some levels map onto others, but all of these are too small.",
        ),
        "level-off-stack": Code(
            "L_s would take this level from off the stack",
            "This one level has no counterpart at this factor.",
        ),
        "level-too-small": Code(
            "the picture covers fewer than {least:g} cells of this level",
            "This one level of a pyramid is too small at this factor.",
        ),
        "no-margin": Code(
            "this tap takes no larger picture, so that nothing can be put around it",
            "A global pooling, a classifier, or a network whose input has one size.",
        ),
        "few-compared": Code(
            "only {share:.1%} of the cells can be compared",
            "Less than a tenth of the map is known on both sides.",
        ),
        "border-leaves-few": Code(
            "only {share:.1%} of the cells can be compared with a border of {border:.3g} px (--border chooses another)",
            "The same, because of the border that is left out.",
        ),
        "not-finite": Code(
            "the features of {broken:d} of {images:d} images are not finite",
            "The network returns infinities or NaN.",
        ),
        "metric-undefined": Code(
            "the metric '{metric}' is not defined for {undefined:d} of {images:d} images",
            "The metric divides by a norm that vanishes.",
        ),
        "dead-tap": Code(
            "dead tap: L_sΦ(f) vanishes for all {images:d} images",
            "The features are those of the empty picture, so there is nothing to compare with.",
        ),
    },
    "Taps of anybody's network": {
        "returns-no-tensor": Code(
            "this module returns no tensor",
            "A tuple, a mapping or an object stands where a feature map is needed.",
        ),
        "no-batch-axis": Code(
            "its output has the shape ({shape:, }) for {images:d} images: its first axis is not the batch",
            "The features of single pictures cannot be told apart.",
        ),
        "tokens-in-a-square": Code(
            "its output (N, {shape:, }) needs a field: --field '{tap}={field}', for example",
            "So many tokens may be a square grid, but nothing says so.",
            ("tap",),
        ),
        "tokens": Code(
            "its output (N, {shape:, }) needs a field: --field '{tap}=tokens:ROWSxCOLUMNS+PREFIX' with {tokens:d} "
            "tokens in all, or invariant",
            "Three axes may be tokens on a grid that only a declaration can give.",
            ("tap",),
        ),
        "levels-undeclared": Code(
            "its output (N, {shape:, }) needs a field: --field '{tap}=scale:…' with its levels, or invariant",
            "More axes than a plane has may be scale levels.",
            ("tap",),
        ),
        "same-position": _unplaced(
            "neighbouring cells look at the same place", "The probe found no distance between cells."
        ),
        "wrong-extent": _unplaced(
            "{cells:d} cells {stride:.3g} px apart would cover {covered:.3g} of {pixels:d} pixels",
            "The probed stride does not fit the image.",
        ),
        "outside-image": _unplaced(
            "its cells would lie at {first:.3g} to {last:.3g}, outside of {pixels:d} pixels",
            "The probed positions do not fit the image.",
        ),
        "one-cell": _unplaced(
            "it has {rows:d} rows and {columns:d} columns, and one says nothing of a stride",
            "A stride is a distance of two cells.",
        ),
        "image-moves-nothing": _unplaced(
            "the image does not move it",
            "The features do not depend on the image, so the probe sees nothing.",
        ),
        "not-called-for-one": Code(
            "a pass with one picture does not call it",
            "The network runs other modules for one picture than for two.",
        ),
        "not-called-for-two": Code(
            "a pass with two pictures does not call it",
            "The network runs other modules for two pictures than for one.",
        ),
        "shape-with-batch": Code(
            "its shape is ({one:, }) for one picture and ({two:, }) for two: its first axis is not always the batch",
            "The number of pictures stands on another axis, or on none.",
        ),
        "complex-numbers": Code(
            "its features are complex ({dtype}): which of modulus, phase or parts is meant is not known; tap a module "
            "that returns real numbers",
            "L_s could act on either part.",
        ),
        "not-real-numbers": Code(
            "its features are {dtype}, not real numbers",
            "Whole numbers and truth values cannot be interpolated.",
        ),
    },
    "Accuracy": {
        "no-labels": Code("the images have no labels", "Only the agreement with s = 1 can be told."),
        "other-classes": Code(
            "the network has {outputs:d} outputs, the images {classes:d} classes",
            "The network was made for other classes.",
        ),
        "random-weights": Code(
            "the weights are random",
            "What an untrained network says of a class is chance; its agreement remains.",
        ),
        "no-such-category": Code(
            "the folder '{folder}' is none of the network's {classes:d} categories",
            "Labels are the names of folders, which must be those of the network's classes, or ImageNet's wnids.",
        ),
        "wnid-unknown": Code(
            "the folder '{folder}' is a wnid of ImageNet, whose {classes:d} classes are listed where timm is installed",
            "Without timm the names of ImageNet's classes are known, not their wnids.",
        ),
        "no-logits": Code("the network gives no logits", "No tap holds class scores."),
        "no-logits-tap": Code(
            "{network} gives no tap 'logits'",
            "A network that declares its own taps has none for its class scores.",
        ),
        "no-tap": Code(
            "no tap could be measured", "Every tap asked for is missing, each for a reason of its own."
        ),
        "no-tensor": Code("the network returns no tensor but {type}", "Class scores are a tensor."),
        "no-class-scores": Code(
            "the network returns {shape:×} for {images:d} images, not one row of class scores for each",
            "Class scores have the shape (N, classes).",
        ),
        "one-number": Code(
            "the network returns a single number for {images:d} images, not one row of class scores for each",
            "Class scores have the shape (N, classes).",
        ),
    },
    "The Lie derivative": {
        "tap-too-small": Code(
            "this tap has {cells:d} cells across, fewer than {least:g}",
            "So few cells have no comparable scale.",
        ),
        "no-level-beside": Code(
            "no scale level of this tap has a comparable one on either side (0 of {levels:d})",
            "A derivative along scale needs neighbours.",
        ),
        "dead-tap-unscaled": Code(
            "dead tap: Φ(f) vanishes for all {images:d} images",
            "The features are those of the empty picture.",
        ),
        "tangent-zero": Code(
            _TANGENT.format("is silently zero"),
            "Some operators return no derivative in forward mode, without notice.",
        ),
        "tangent-wrong": Code(_TANGENT.format("is {error:.0%} off"), "An operator has a wrong derivative."),
        "tangent-not-finite": Code(
            _TANGENT.format("is not finite"), "An operator has a derivative without a value."
        ),
        "no-forward-mode": Code(
            "{operator}: it cannot be differentiated in forward mode, so no Lie derivative can be measured ({error})",
            "An operator refuses forward mode; its own message is told.",
        ),
    },
    "Parts by themselves": {
        "too-few-cells-before": Code(
            "the picture covers {cells:.2g} cells before this part, fewer than {least:g}",
            "The map that the part would be fed with is too small.",
        ),
        "no-level-before": Code(
            "no scale level before this part maps onto another at this factor",
            "The part cannot be fed with rescaled features.",
        ),
        "unknown-reaches-all": Code(
            "scale levels that L_s cannot know reach everything behind this part",
            "The part mixes all levels, as a maximum over scale does.",
        ),
        "output-undeclared": Code(
            "nothing says how scale acts on what comes out of it",
            "No field is declared or follows behind the part.",
        ),
        "input-shape-unknown": Code(
            "nothing says how scale acts on (N, {shape:, }), which goes into it",
            "No field is declared or follows for features of this shape.",
        ),
        "output-shape-unknown": Code(
            "nothing says how scale acts on (N, {shape:, }), which comes out of it",
            "No field is declared or follows for features of this shape.",
        ),
        "takes-several-tensors": Code(
            "the layer takes more than one tensor", "Only one of them could be rescaled."
        ),
        "takes-no-tensor": Code("the layer takes no tensor", "There is nothing to rescale."),
        "returns-several-tensors": Code(
            "the layer returns more than one tensor", "Which of them is compared is not known."
        ),
        "no-stages": Code(
            "this network is no chain of stages, so none can be run alone; --attribute measures its layers",
            "A foreign network does not say what lies between its taps.",
        ),
        "no-such-layer": Code(
            "no layer of this kind works on features that scale moves", "The network has no such layer."
        ),
    },
    "Warnings of a value": {
        "off-lattice": Code(
            "off the lattice of scales: levels are interpolated",
            "The factor maps no level exactly onto another.",
        ),
        "framed": Code(
            "framed: pictures reach their edge, which is compared too once they shrink (see --border)",
            "A shrunk picture shows its edge as a frame, which is no part of what was photographed.",
        ),
        "narrow-border": Code(
            "framed: the border of {border:g} px is narrower than the tap's receptive-field radius of {radius:.0f} px",
            "Cells inside of the border still see the frame around a shrunk picture, or what a magnified one has lost.",
        ),
        "global": Code(
            "global: this tap sees the whole window, and a rescaled photograph shows another part of the world in it",
            "Logits, and tokens that attend to all others: what the window gains or loses is counted with the error.",
        ),
        "framed-output": Code(
            "framed: this tap reads whole pictures, with the frame that shrinking makes around them",
            "No border can be left out where nothing has a position.",
        ),
        "cut-output": Code(
            "cut: this tap reads whole pictures, and magnified ones leave the canvas",
            "No border can be left out where nothing has a position.",
        ),
        "cut": Code(
            "cut: the magnified pictures leave the canvas, which is compared too (see --border)",
            "A magnified picture loses what leaves the canvas.",
        ),
        "tiny-plane": Code(
            "tiny plane: the picture covers {cells:.2g} cells", "So few cells hardly have a scale."
        ),
        "below-control": Code(
            "below the pointwise control ({control:.2g}): what sampling a nonlinearity costs by itself",
            "No network with nonlinearities can be expected to do better on this grid.",
        ),
        "half-precision": Code(
            "coarse: the features are {dtype}, read as float32", "Rounding adds to the error."
        ),
        "picture-by-picture": Code(
            "alone: measured picture by picture, because tap '{tap}' of a picture changes by {change:.1%} with the "
            "other pictures of its batch",
            "In larger batches the value would be another.",
        ),
    },
    "Runs that did not finish": {
        "loss-not-finite": Code(
            "the loss is not finite at epoch {epoch:d}, step {step:d} of {steps:d} (learning rate {lr:g})",
            "Training diverged.",
        ),
        "stopped": Code(
            "stopped in epoch {epoch:d} of {epochs:d}, after step {step:d} of {steps:d}",
            "A signal stopped the run; its state is saved.",
        ),
        "stopped-before-test": Code(
            "stopped before the test; all epochs are done", "A signal stopped the run; its state is saved."
        ),
        "not-begun": Code("stopped before its first step", "A replica's turn had not come."),
        "second-signal": Code(
            "ended at once by a second signal", "What was saved at the last epoch is kept."
        ),
    },
    "Everywhere": {
        "failed": Code("{error}", "An error; its own message is told."),
        "older": Code("{text}", "A sentence of a record that an older secli wrote, in words of its own."),
        "no-reason": Code("no reason given", "A record whose writer gave none."),
    },
}
CODES: Final = {name: code for group in GROUPS.values() for name, code in group.items()}
