"""The fields of an Altcraft request, read with the types that the contract gives them."""

from __future__ import annotations

import base64
import re
from datetime import datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatchkit.sandbox.wire import Json

INTEGERS: Final = frozenset(
    {"id", "override_source_id", "override_limit", "limit", "from_id", "resource_id", "list_id"}
)
"""The fields that are integers: XML, where everything is text, has to know them."""

FLAGS: Final = frozenset({"run_now", "abort_if_running", "is_active"})
"""The fields that are booleans."""

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_DATA_URL = re.compile(r"data:[^,]*;base64,")


class RefusedError(Exception):
    """Altcraft says no: ``code`` and ``text`` become ``error`` and ``error_text``."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


class Fields:
    """The fields of one request; a null is as good as absent, unknown fields are ignored.

    Every method raises :class:`RefusedError` with code 400 if its field has another type than the contract says.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Json]) -> None:
        self._values = values

    def integer(self, name: str) -> int | None:
        """An integer (and never a boolean), or None."""
        value = self._values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | None):
            raise _mistyped(name, "an integer")
        return value

    def flag(self, name: str) -> bool:
        """A boolean; False if absent."""
        value = self._values.get(name)
        if not isinstance(value, bool | None):
            raise _mistyped(name, "a boolean")
        return bool(value)

    def optional_flag(self, name: str) -> bool | None:
        """A boolean, or None if absent."""
        return None if self._values.get(name) is None else self.flag(name)

    def text(self, name: str) -> str | None:
        """A string, or None."""
        value = self._values.get(name)
        if not isinstance(value, str | None):
            raise _mistyped(name, "a string")
        return value

    def moment(self, name: str) -> float | None:
        """An RFC 3339 time as seconds since the epoch, or None."""
        text = self.text(name)
        if text is None:
            return None
        if not _RFC3339.fullmatch(text):
            raise _mistyped(name, "a time as of RFC 3339")
        try:
            return datetime.fromisoformat(text).timestamp()
        except ValueError:
            raise _mistyped(name, "a time as of RFC 3339") from None

    def limit(self, name: str) -> int | None:
        """An integer that is not negative, or None."""
        value = self.integer(name)
        if value is not None and value < 0:
            raise _mistyped(name, "zero or more")
        return value

    def check_launch(self, *, takes_audience: bool) -> None:
        """Refuse what no launch may carry.

        Args:
            takes_audience: Whether an override of the audience makes sense here: it needs a run to apply to.
        """
        kind, source = self.text("override_source_type"), self.integer("override_source_id")
        if kind is not None and kind not in ("list", "segment"):
            raise RefusedError(400, "override_source_type must be list or segment")
        if (kind is None) != (source is None):
            raise RefusedError(400, "override_source_type and override_source_id must come together")
        if kind is not None and not takes_audience:
            raise RefusedError(400, "override_source_type and override_source_id need run_now")
        self.limit("override_limit")
        if not isinstance(self._values.get("content"), dict | None):
            raise _mistyped("content", "an object")
        self._check_attach()

    def has_attach(self) -> bool:
        """Whether files came with the request."""
        return bool(self._values.get("attach"))

    def _check_attach(self) -> None:
        files = self._values.get("attach")
        if files is None:
            return
        if not isinstance(files, list):
            raise _mistyped("attach", "an array of files")
        for file in files:
            if (
                not isinstance(file, dict)
                or not isinstance(file.get("name"), str)
                or not _is_data_url(file.get("data"))
            ):
                raise _mistyped("attach", "an array of files with a name and data as a Base64 data URL")


def _is_data_url(value: Json) -> bool:
    matched = _DATA_URL.match(value) if isinstance(value, str) else None
    if matched is None:
        return False
    try:
        base64.b64decode(matched.string[matched.end() :], validate=True)
    except ValueError:
        return False
    return True


def _mistyped(name: str, expected: str) -> RefusedError:
    return RefusedError(400, f"Incorrect request: {name} must be {expected}")
