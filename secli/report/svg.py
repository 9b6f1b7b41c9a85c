"""A figure as SVG inside an HTML page: no prolog, no metadata, no links out, and ids of its own."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from secli.figures.style import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


def inline_svg(figure: Figure, prefix: str, label: str) -> str:
    """Return a figure as one ``<svg>`` element for an HTML page; the same figure gives the same text.

    ``prefix`` stands before every id, so that no two figures of a page share one; ``label`` is for screen readers.
    """
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    # no parser of the world's XML: what matplotlib wrote a moment ago
    root = ElementTree.fromstring(buffer.getvalue())
    return _text(_own(root, prefix, label))


def _own(root: ElementTree.Element, prefix: str, label: str) -> ElementTree.Element:
    """Make the drawing independent of what else is on the page."""
    for parent in list(root.iter()):
        for child in list(parent):
            # metadata links to web pages; a style here would hold for the whole page
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style") or _only_style(child):
                parent.remove(child)
    seen: set[str] = set()
    for element in root.iter():
        for name, value in list(element.attrib.items()):
            if name == "id":
                del element.attrib[name]
                if value not in seen:  # a mark that is drawn alike twice is defined alike twice
                    seen.add(value)
                    element.set("id", f"{prefix}-{value}")
            elif name == f"{{{XLINK}}}href":
                del element.attrib[name]
                element.set("href", f"#{prefix}-{value.removeprefix('#')}" if value[:1] == "#" else value)
            else:
                element.set(name, _REFERENCE.sub(rf"url(#{prefix}-\1)", value))
    width = float(root.attrib.pop("width").removesuffix("pt"))
    root.attrib.pop("height")
    root.set("style", f"--natural: {width * 4 / 3:.0f}px")  # 4 px are 3 pt
    root.set("role", "img")
    root.set("aria-label", label)
    return root


def _only_style(element: ElementTree.Element) -> bool:
    children = list(element)
    return element.tag == f"{{{SVG}}}defs" and [child.tag for child in children] == [f"{{{SVG}}}style"]


def _text(root: ElementTree.Element) -> str:
    ElementTree.register_namespace("", SVG)
    ElementTree.indent(root, "")
    return ElementTree.tostring(root, encoding="unicode")
