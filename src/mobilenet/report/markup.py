"""HTML and SVG elements whose text is escaped unless it is markup already."""

from collections.abc import Mapping
from html import escape

_VOID = {"meta", "img", "br"}


class Markup(str):
    """Text that is HTML; a plain `str` never is."""

    __slots__ = ()


def element(
    tag: str, attributes: Mapping[str, str | float | None] | None = None, *children: str | Markup
) -> Markup:
    """`<tag attributes>children</tag>`; plain text and attribute values are escaped.

    An attribute of None is left out.
    """
    written = "".join(
        f' {name}="{escape(_attribute(value))}"'
        for name, value in (attributes or {}).items()
        if value is not None
    )
    if tag in _VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{join(*children)}</{tag}>")


def join(*parts: str | Markup) -> Markup:
    """Parts one behind the other, plain text escaped."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))


def _attribute(value: str | float) -> str:
    """Coordinates need no more than a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
