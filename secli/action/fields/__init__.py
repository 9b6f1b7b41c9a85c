"""L_s on features: how scale acts on each kind of feature map.

A network Φ is equivariant under scale when Φ(L_s f) = L_s Φ(f); what ``L_s`` means on the right depends on the
features. A ``Field`` defines it: a plane is only rescaled, a scale space also moves along its levels, a vector field
also turns. Cells that L_s cannot know (levels that would come from off the stack) are masked on both sides.
"""

from secli.action.fields.contract import LATTICE_TOLERANCE, Acted, Canvas, Field, Pair, both
from secli.action.fields.invariant import Invariant
from secli.action.fields.plane import Plane
from secli.action.fields.pyramid import Pyramid, small_levels, without_levels
from secli.action.fields.resampling import inside, rescale_plane
from secli.action.fields.scale_space import ScaleSpace, read_levels
from secli.action.fields.vector import VectorField

__all__ = [
    "LATTICE_TOLERANCE",
    "Acted",
    "Canvas",
    "Field",
    "Invariant",
    "Pair",
    "Plane",
    "Pyramid",
    "ScaleSpace",
    "VectorField",
    "both",
    "inside",
    "read_levels",
    "rescale_plane",
    "small_levels",
    "without_levels",
]
