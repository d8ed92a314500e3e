"""`dispatchkit.provider`: what is exported is there, and its documentation names it."""

from __future__ import annotations

import dataclasses
import inspect
import re

import pytest

import dispatchkit.provider
from dispatchkit.core.call.classify import classify
from dispatchkit.core.clock import SYSTEM
from dispatchkit.errors import OutcomeUnknownError
from dispatchkit.provider import Provider, Response, Secret
from tests.providers.example_provider import StartSms

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


class Accepted(StartSms):
    success_statuses = frozenset({202, 302, 502})

    def result(self, response: Response, wire: Secret) -> str:
        return f"HTTP {response.status}"


@pytest.mark.parametrize("status", [201, 302, 502])
def test_other_statuses_prove_nothing(status: int) -> None:
    reply = Response(status, {}, b"")
    assert isinstance(classify(Accepted(7), reply, Secret("t", environment="T"), SYSTEM), OutcomeUnknownError)


def test_named_status_is_judged() -> None:
    assert classify(Accepted(7), Response(202, {}, b""), Secret("t", environment="T"), SYSTEM) == "HTTP 202"
