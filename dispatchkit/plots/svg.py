"""The parts of a chart as SVG text. All text and all attributes are escaped here."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

import attrs

from dispatchkit.plots.scale import Axis

__all__ = ["Frame", "Line", "chart", "element", "empty"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 128, 40, 42
_GAP = 14.0
"""Distance between two labels of lines."""


@attrs.frozen
class Frame:
    """What surrounds the lines of a chart."""

    ident: str
    """Prefix of the ids, which are unique in a page."""
    title: str
    description: str
    width: int
    height: int


@attrs.frozen
class Line:
    """One line of a chart, from left to right."""

    label: str
    name: str
    """The suffix of its CSS class."""
    dashes: str
    """Of SVG's ``stroke-dasharray``; empty for a continuous line."""
    points: Sequence[tuple[float, float] | None]
    """Places from 0 to 1, from the lower left. None breaks the line."""
    is_filled: bool = False


def element(name: str, content: str | None = None, /, **attributes: str | float) -> str:
    """An element. ``class_`` is the attribute ``class``, and other underscores are hyphens.

    Args:
        name: The name.
        content: Markup, which is not escaped; None closes the element at once.
        attributes: Its attributes.
    """
    parts = [name, *(f'{_attribute(key)}="{html.escape(_value(value))}"' for key, value in attributes.items())]
    return f"<{' '.join(parts)}/>" if content is None else f"<{' '.join(parts)}>{content}</{name}>"


def chart(frame: Frame, across: Axis, up: Axis, lines: Iterable[Line]) -> str:
    """A chart with two axes."""
    width, height = frame.width - _LEFT - _RIGHT, frame.height - _TOP - _BOTTOM
    bottom = float(_TOP + height)
    grid: list[str] = []
    texts: list[str] = [
        _text(_LEFT - 56, 16, frame.title, class_="dk-title", font_size=14),
        _text(_LEFT + width / 2, frame.height - 6, across.label, text_anchor="middle"),
        _text(_LEFT, _TOP - 6, up.label),
    ]
    for tick in up.ticks:
        y = bottom - tick.place * height
        grid.append(element("path", d=f"M{_LEFT} {_value(y)}h{width}"))
        texts.append(_text(_LEFT - 6, y + 4, tick.label, text_anchor="end"))
    for tick in across.ticks:
        x = _LEFT + tick.place * width
        grid.append(element("path", d=f"M{_value(x)} {_TOP}v{height + 4}"))
        texts.append(_text(x, bottom + 17, tick.label, text_anchor="middle"))
    drawn: list[str] = []
    ends: list[tuple[float, str, str]] = []
    for line in lines:
        places = [
            None if point is None else (_LEFT + point[0] * width, bottom - point[1] * height) for point in line.points
        ]
        last = next((place for place in reversed(places) if place is not None), None)
        if last is None:
            continue
        if line.is_filled:
            drawn.append(element("path", class_=f"dk-area dk-{line.name}", opacity=0.15, d=_area(places, bottom)))
        dashes = {"stroke_dasharray": line.dashes} if line.dashes else {}
        drawn.append(
            element(
                "path",
                class_=f"dk-line dk-{line.name}",
                fill="none",
                stroke="currentColor",
                stroke_width=2,
                **dashes,
                d=_path(places),
            )
        )
        ends.append((last[1], line.label, line.name))
    for y, (_, label, _) in zip(_apart([y for y, *_ in sorted(ends)], bottom), sorted(ends), strict=True):
        texts.append(_text(_LEFT + width + 6, y + 4, label))
    return _svg(
        frame,
        element("g", "".join(grid), class_="dk-grid", stroke="currentColor", stroke_width=1, opacity=0.2),
        *drawn,
        element("g", "".join(texts), fill="currentColor", font_size=12),
    )


def _svg(frame: Frame, *content: str) -> str:
    title, description = f"{frame.ident}-title", f"{frame.ident}-description"
    return element(
        "svg",
        element("title", html.escape(frame.title), id=title)
        + element("desc", html.escape(frame.description), id=description)
        + "".join(content),
        xmlns="http://www.w3.org/2000/svg",
        class_="dk-plot",
        role="img",
        aria_labelledby=f"{title} {description}",
        viewBox=f"0 0 {frame.width} {frame.height}",
        width=frame.width,
        height=frame.height,
    )


def empty(frame: Frame, text: str) -> str:
    """A chart that has nothing to show but a text."""
    texts = _text(8, 16, frame.title, class_="dk-title", font_size=14)
    texts += _text(frame.width / 2, frame.height / 2, text, text_anchor="middle")
    return _svg(frame, element("g", texts, fill="currentColor", font_size=12))


def _text(x: float, y: float, text: str, /, **attributes: str | float) -> str:
    return element("text", html.escape(text), x=x, y=y, **attributes)


def _path(places: Iterable[tuple[float, float] | None]) -> str:
    parts: list[str] = []
    letter = "M"
    for place in places:
        if place is None:
            letter = "M"
            continue
        parts.append(f"{letter}{_value(place[0])} {_value(place[1])}")
        letter = "L"
    return "".join(parts)


def _area(places: Sequence[tuple[float, float] | None], bottom: float) -> str:
    whole = [place for place in places if place is not None]
    return f"{_path(whole)}V{_value(bottom)}H{_value(whole[0][0])}Z"


def _apart(places: Sequence[float], bottom: float) -> list[float]:
    """Places of labels from top to bottom, so far apart that they do not cover each other."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + _GAP) if moved else place)
    end = bottom + 4
    for index in reversed(range(len(moved))):
        moved[index] = min(moved[index], end)
        end = moved[index] - _GAP
    return moved


def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0") if value >= 1 else f"{value:g}"
