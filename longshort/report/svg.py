"""Matplotlib's SVG made fit for a page with others and with a strict content security policy."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from longshort.report.text import one_line

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
# Colours that follow the page's scheme, by the class that viewer.css gives a colour.
_INKS = {"#000000": "ink", "#555555": "soft", "#ffffff": "paper", "#b0b0b0": "rule"}


def inline(svg: str, name: str, title: str) -> str:
    """``<svg>`` for HTML, without styles, scripts and metadata, all ids under ``name``.

    The policy refuses ``style`` attributes, so that each becomes an SVG attribute. ``title`` is what a screen reader
    says.
    """
    ElementTree.register_namespace("", _SVG)
    root = ElementTree.fromstring(svg)
    for parent in root.iter():
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style", "script"):
                parent.remove(child)
    for element in root.iter():
        _clean(element, name)
    for attribute in ("width", "height"):
        root.attrib.pop(attribute, None)
    root.attrib |= {"class": "plot", "role": "img", "aria-label": one_line(title)}
    return ElementTree.tostring(root, encoding="unicode")


def _clean(element: ElementTree.Element, name: str) -> None:
    for declaration in element.attrib.pop("style", "").split(";"):
        key, _, value = declaration.partition(":")
        if value:
            element.set(key.strip(), value.strip())
    classes = []
    for key, value in list(element.attrib.items()):
        if key == "id":
            element.set("id", f"{name}-{value}")
        elif key == f"{{{_XLINK}}}href":
            del element.attrib[key]
            element.set("href", f"#{name}-{value.removeprefix('#')}")
        elif "url(#" in value:
            element.set(key, _REFERENCE.sub(rf"url(#{name}-\1)", value))
        elif key in ("fill", "stroke") and value in _INKS:
            classes.append(f"{key}-{_INKS[value]}")
    if classes:
        element.set("class", " ".join(classes))


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
