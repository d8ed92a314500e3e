"""The rows of JSON Lines: what ``--json`` prints, an outcome or a target a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import cast

from dispatchkit.cli.input.bad_rows import BadRows
from dispatchkit.cli.input.columns import field_name
from dispatchkit.cli.input.damage import shown
from dispatchkit.cli.input.table import Row
from dispatchkit.cli.translate import _

__all__ = ["looks_like_json", "read_json_lines"]

_IDS = ("target", "id")
_NESTED_IDS = ("id", "dispatch_id", "mailing_id")
_STATES = ("state", "outcome")


def looks_like_json(block: str) -> bool:
    """Whether a file that begins so is JSON."""
    return block.lstrip()[:1] in {"{", "["}


def read_json_lines(
    blocks: Iterable[str], column: str | None, bad: BadRows, *, id_key: str | None = None
) -> Iterator[Row]:
    """The rows of JSON Lines.

    Args:
        blocks: The text; see `text_blocks`.
        column: The key of the id. None: ``target`` or ``id``, and then each object has its ``state`` too.
        bad: Takes the lines that cannot be used.
        id_key: The key of the id in what the provider lists. Such an object needs no state.

    Raises:
        ValueError: It is one JSON document over many lines.
    """
    number = 0
    for block in blocks:
        lines = block.split("\n")
        if not lines[-1]:
            lines.pop()
        for line in lines:
            number += 1
            if not line.strip():
                continue
            if (number == 1 and line.strip() in {"[", "{"}) or line.lstrip()[:1] == "[":
                raise ValueError(
                    _(
                        "{name}, line {number}: this is a JSON document, not JSON Lines. To convert a list to "
                        "one object per line: jq -c '.[]'"
                    ).format(name=bad.name, number=number)
                )
            try:
                yield (number, *_read(line, column, id_key))
            except ValueError as error:
                bad.add(number, str(error))


def _read(line: str, column: str | None, id_key: str | None) -> tuple[str, str | None, str | None]:
    try:
        value: object = json.loads(line, object_pairs_hook=_unique, parse_constant=_constant)
    except json.JSONDecodeError:
        raise ValueError(_("this is not a JSON object: the line may be cut short")) from None
    except RecursionError:
        raise ValueError(_("this is nested too deeply")) from None
    if not isinstance(value, dict):
        raise ValueError(_("{line} is not a JSON object").format(line=shown(line)))  # noqa: TRY004 - a text that the user gave
    fields = _named(cast("dict[str, object]", value))
    state, command = _state(fields), _command(fields)
    if column is not None:
        if field_name(column) not in fields:
            raise ValueError(_("it has no key {column!r}").format(column=column))
        return _text(fields[field_name(column)]), state, command
    ids = {_text(fields[key]) for key in _IDS if key in fields}
    stored = fields.get("command")
    if isinstance(stored, dict) and (not ids or _names_id(cast("dict[str, object]", stored))):
        ids.add(_text(cast("dict[str, object]", stored)))
    if not ids and state is None and id_key in fields:
        return _text(fields[id_key]), None, None
    if not ids:
        raise ValueError(_("it has neither a target nor an id: name the key that holds the id: --column NAME"))
    if state is None:
        raise ValueError(
            _("it has no state: if it is not what dispatchkit prints, name the key of the id: --column NAME")
        )
    if len(ids) > 1:
        raise ValueError(_("its target, its id and that of its command are not the same"))
    return ids.pop(), state, command


def _names_id(command: dict[str, object]) -> bool:
    return any(field_name(key) in _NESTED_IDS for key in command)


def _named(pairs: dict[str, object]) -> dict[str, object]:
    """The keys as names are compared."""
    return _unique([(field_name(key), item) for key, item in pairs.items()])


def _state(fields: dict[str, object]) -> str | None:
    states = {fields[key] if isinstance(fields[key], str) else "" for key in _STATES if key in fields}
    if len(states) > 1:
        raise ValueError(_("its state and its outcome are not the same"))
    state = next(iter(states), None)
    return cast("str | None", state)


def _command(fields: dict[str, object]) -> str | None:
    """The name of the command, where the object has one."""
    command = fields.get("command")
    name = cast("dict[str, object]", command).get("type") if isinstance(command, dict) else None
    return name if isinstance(name, str) else None


def _text(value: object) -> str:
    """The id as text: an integer, a text, or an object with one of them as its id."""
    if isinstance(value, dict):
        nested = _named(cast("dict[str, object]", value))
        ids = [item for key, item in nested.items() if key in _NESTED_IDS]
        if len(ids) != 1 or isinstance(ids[0], dict):
            raise ValueError(_("its target holds no id"))
        value = ids[0]
    if isinstance(value, str):
        return value.strip(" \t")
    if type(value) is not int:
        raise ValueError(_("{value} is not an id: it must be an integer").format(value=shown(json.dumps(value))))
    return str(value)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError(_("it names a key more than once"))
    return fields


def _constant(name: str) -> object:
    raise ValueError(_("{name} is not JSON").format(name=name))
