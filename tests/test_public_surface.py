"""What is exported is there, documented and typed."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

import dispatchkit

PUBLIC = [name for name in dispatchkit.__all__ if name not in {"__version__", "sync"}]
MODULES = [
    importlib.import_module(module.name)
    for module in pkgutil.walk_packages(dispatchkit.__path__, "dispatchkit.")
    if not module.name.startswith(("dispatchkit.sandbox", "dispatchkit.cli", "dispatchkit.__main__"))
]
# What annotations name although it is imported for a type checker only.
NAMES = {name: value for module in MODULES for name, value in vars(module).items() if not name.startswith("__")}


def test_all_names_are_sorted() -> None:
    assert dispatchkit.__all__ == sorted(set(dispatchkit.__all__))
    for name in dispatchkit.__all__:
        assert getattr(dispatchkit, name) is not None
    assert set(dispatchkit.__all__) <= set(dir(dispatchkit))


def test_names_come_from_home_module() -> None:
    assert sorted(dispatchkit._HOME_OF) == PUBLIC
    for name, home in dispatchkit._HOME_OF.items():
        value = getattr(dispatchkit, name)
        if name != "Outcome":  # an alias
            assert value.__module__ == home
            assert value.__name__ == name
        assert name in importlib.import_module(home).__all__


def test_missing_name_is_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'dispatchkit' has no attribute 'nothing'"):
        dispatchkit.nothing  # noqa: B018
    with pytest.raises(ImportError):
        from dispatchkit import nothing  # noqa: F401, PLC0415


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_modules_have_docstring_and_all(module: types.ModuleType) -> None:
    assert (module.__doc__ or "").strip()
    exported = getattr(module, "__all__", [])
    assert len(exported) == len(set(exported))
    for name in exported:
        assert hasattr(module, name)


@pytest.mark.parametrize(
    "statement",
    [
        "import dispatchkit",
        "import dispatchkit; dir(dispatchkit)",
        "from dispatchkit import NotSentError, State",
        "from dispatchkit.errors import ThrottledError",
    ],
)
def test_importing_is_cheap(statement: str) -> None:
    script = (
        f"{statement}\nimport sys\nprint([name for name in ('aiohttp', 'tenacity', 'asyncio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "[]\n"


def test_names_import_in_fresh_process() -> None:
    script = (
        "from dispatchkit import *\nimport dispatchkit\nassert all(name in globals() for name in dispatchkit.__all__)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=30)


def options_of(function: Any) -> Any:
    """The `TypedDict` of a function's ``**options``, if it has some."""
    unpacked = hints(function).get("options")
    return None if unpacked is None else typing.get_args(unpacked)[0]


def functions(owner: Any) -> Iterator[tuple[str, Any]]:
    """Public functions of a public class, those that it inherits from us too."""
    for name, member in inspect.getmembers(owner):
        if name.startswith("_") and name != "__init__":
            continue
        function = member.fget if isinstance(member, property) else member
        if inspect.isroutine(function) and (getattr(function, "__module__", "") or "").startswith("dispatchkit"):
            yield name, function


CLASSES = [value for name in PUBLIC if inspect.isclass(value := getattr(dispatchkit, name))]
CLASSES += [value for name in dispatchkit.sync.__all__ if inspect.isclass(value := getattr(dispatchkit.sync, name))]
METHODS = [
    pytest.param(owner, name, function, id=f"{owner.__module__}.{owner.__name__}.{name}")
    for owner in CLASSES
    for name, function in functions(owner)
]


@pytest.mark.parametrize("owner", CLASSES)
def test_classes_have_docstrings(owner: type) -> None:
    text = inspect.cleandoc(owner.__doc__ or "")
    assert text
    assert not text.startswith(f"{owner.__name__}("), "attrs or dataclass made it up"


@pytest.mark.parametrize(("owner", "name", "function"), METHODS)
def test_methods_document_arguments(owner: type, name: str, function: Any) -> None:
    text = inspect.getdoc(owner) if name == "__init__" else inspect.getdoc(function)
    assert text
    if name == "__init__" and (attrs.has(owner) or issubclass(owner, Exception) or "sync" in owner.__module__):
        return  # fields have docstrings of their own; a blocking client refers to its asynchronous one
    settings = [name for name in inspect.signature(function).parameters if name not in {"self", "cls"}]
    if options_of(function) is not None:
        referred = re.search(r"^ *options: See `(\w+)`", text, re.MULTILINE)
        assert referred
        documented = getattr(dispatchkit, referred[1]).__annotations__
        assert options_of(function).__annotations__.keys() <= documented.keys()
        settings = [name for name in settings if name not in documented]  # see tests/core/test_options.py
    if owner.__name__.endswith("Client"):
        for setting in settings:
            assert f"{setting}:" in text, f"{setting} is not explained"
        if settings:
            assert "Raises:" in text


def hints(function: Any) -> dict[str, Any]:
    return typing.get_type_hints(function, {**NAMES, **sys.modules[function.__module__].__dict__})


def holds_any(hint: Any) -> bool:
    return hint is Any or any(holds_any(part) for part in typing.get_args(hint) if not isinstance(part, str))


@pytest.mark.parametrize(("owner", "name", "function"), METHODS)
def test_no_annotation_is_any(owner: type, name: str, function: Any) -> None:
    known = hints(function)
    if name == "__init__" and attrs.has(owner):  # attrs leaves a field that has a converter without a type there
        known |= {field.name: field.type for field in attrs.fields(owner) if field.name not in known}
    if (options := options_of(function)) is not None:
        known |= hints(options)
    for parameter in inspect.signature(function).parameters:
        if parameter not in {"self", "cls"}:
            assert parameter in known, f"{parameter} has no type"
    assert not [parameter for parameter, hint in known.items() if holds_any(hint)]
    assert "return" in known


def test_any_would_be_seen() -> None:
    assert holds_any(list[dict[str, Any]])
    assert not holds_any(list[dict[str, object]])
    assert len(METHODS) > 30
