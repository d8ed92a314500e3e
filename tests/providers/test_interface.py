"""`dispatchkit.provider`: what is exported is there, and its documentation names it."""

from __future__ import annotations

import dataclasses
import inspect
import re

import pytest

import dispatchkit.provider
from dispatchkit.provider import Provider

NAMES = dispatchkit.provider.__all__
TEXT = inspect.getdoc(dispatchkit.provider) or ""


@pytest.mark.parametrize("name", NAMES)
def test_documentation_names_it(name: str) -> None:
    assert hasattr(dispatchkit.provider, name)
    assert re.search(rf"\b{name}\b", TEXT)


def test_few_fields_are_required() -> None:
    required = {
        field.name
        for field in dataclasses.fields(Provider)
        if field.default is field.default_factory is dataclasses.MISSING
    }
    assert required == {"name", "client", "commands", "token_variable"}
