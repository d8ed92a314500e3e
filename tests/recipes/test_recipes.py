"""The recipes' text: short, complete, and all of it run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.recipes.recipe import BLOCKS, RECIPES

TESTED = {"FastAPI", "Celery", "Django", "Kubernetes", "pytest"}
"""The recipes that a module of this folder runs, or `tests.testing.test_plugin`."""


@pytest.mark.parametrize("name", BLOCKS)
def test_recipe_is_short(name: str) -> None:
    lines = BLOCKS[name].splitlines()
    assert len([line for line in lines if line]) <= 25
    assert max(map(len, lines)) <= 120


def test_every_recipe_is_run() -> None:
    assert BLOCKS.keys() == TESTED == set(re.findall(r"^## (.+)$", RECIPES, re.MULTILINE))
    assert RECIPES.count("\n```\n") == len(BLOCKS)


def test_links_lead_to_docs() -> None:
    docs = Path(__file__).parents[2] / ".github/docs"
    links = re.findall(r"\]\((\w+\.md)(?:#([\w-]+))?\)", RECIPES)
    assert links
    for name, anchor in links:
        headings = re.findall(r"^#+ (.+)$", (docs / name).read_text(encoding="utf-8"), re.MULTILINE)
        assert not anchor or anchor in {heading.lower().replace(" ", "-") for heading in headings}
