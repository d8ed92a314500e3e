"""The recipe for Django: a real project with SQLite, whose command reads a QuerySet in its own thread."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dispatchkit.sandbox import Sandbox
from tests.recipes.recipe import BLOCKS, environment, python, require

pytestmark = pytest.mark.second_stage

SETTINGS = """
import os
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "site.db"}}
INSTALLED_APPS = ["launches"]
USE_TZ = True
DISPATCHKIT_LEDGER = "launch.db"
DISPATCHKIT_TOKEN = os.environ["DISPATCHKIT_DIRECT_TOKEN"]
DISPATCHKIT_URL = os.environ["DISPATCHKIT_DIRECT_URL"]
"""
MODELS = """
from django.db import models
class Mailing(models.Model):
    dispatch_id = models.BigIntegerField()
    is_due = models.BooleanField(default=True)
    class Meta:
        app_label = "launches"
"""
FILL = """
from launches.models import Mailing
numbers = range(1, 601)
Mailing.objects.bulk_create(Mailing(dispatch_id=number, is_due=number % 2 == 1) for number in numbers)
"""
GIVE_QUERY_SET = """
import asyncio
from django.core.exceptions import SynchronousOnlyOperation
from dispatchkit import DirectClient
from launches.models import Mailing
ids = Mailing.objects.filter(dispatch_id__lte=10).values_list("dispatch_id", flat=True)
async def main():
    async with DirectClient() as direct:
        try:
            direct.start_many(ids)
        except SynchronousOnlyOperation:
            print((await direct.start_many(ids.aiterator()).finish()).done)
asyncio.run(main())
"""


class Site:
    """A project with the recipe's command."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self.folder = folder
        self.environment = environment(sandbox, DJANGO_SETTINGS_MODULE="settings")
        commands = folder / "launches/management/commands"
        commands.mkdir(parents=True)
        (commands / "launch.py").write_text(BLOCKS["Django"])
        (folder / "launches/models.py").write_text(MODELS)
        (folder / "settings.py").write_text(SETTINGS)
        self.manage("migrate", "--run-syncdb")
        self.manage("shell", "-c", FILL)

    def manage(self, *words: str, status: int = 0) -> str:
        command = python("django", *words, "--pythonpath", ".")
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=50, check=False
        )
        assert done.returncode == status, done.stderr
        return done.stdout if status == 0 else done.stderr


@pytest.fixture
def site(tmp_path: Path, sandbox: Sandbox) -> Site:
    require("django")
    return Site(tmp_path, sandbox)


def test_command_launches_query_set(site: Site, sandbox: Sandbox) -> None:
    for _ in range(2):  # the second one finds all of it in the ledger
        assert site.manage("launch", "black-friday") == "300 of 300 started\n"
    assert dict(sandbox.launches) == dict.fromkeys(range(1, 601, 2), 1)
    site.manage("shell", "-c", "from launches.models import Mailing; Mailing.objects.create(dispatch_id=10**9)")
    refused = site.manage("launch", "black-friday", status=1)  # another list is another run
    assert "black-friday" in refused
    failed = site.manage("launch", "cyber-monday", status=1)
    assert "run 'cyber-monday' is not all done" in failed


def test_async_client_takes_aiterator(site: Site, sandbox: Sandbox) -> None:
    assert site.manage("shell", "-c", GIVE_QUERY_SET).endswith("10\n")
    assert dict(sandbox.launches) == dict.fromkeys(range(1, 11), 1)
