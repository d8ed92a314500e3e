"""The lookup of a text: which language, which form, and what a broken catalogue does."""

from __future__ import annotations

import gettext
from pathlib import Path

import pytest
from babel.messages import Catalog

from dispatchkit.cli.translate import Catalogue, find_catalogue, fits
from tests.cli.translations import compiled

MANY = ("{count:,} id", "{count:,} ids")


@pytest.fixture
def russian() -> Catalog:
    """Two texts in Russian."""
    catalog = Catalog(locale="ru", domain="dispatchkit", fuzzy=False)
    catalog.add("Run {name}", "Запуск {name}")
    catalog.add(MANY, ("{count:,} номер", "{count:,} номера", "{count:,} номеров"))
    return catalog


def found(folder: Path, **environment: str) -> Catalogue | None:
    return find_catalogue({"DISPATCHKIT_LOCALE_DIR": str(folder), **environment})


@pytest.mark.parametrize(
    "environment",
    [
        {"LANG": "ru"},
        {"LANG": "ru_RU.UTF-8"},
        {"LC_ALL": "ru_RU", "LANG": "en_US"},
        {"LANGUAGE": "fi:ru:en", "LC_ALL": "C"},
        {"LANGUAGE": "", "LC_MESSAGES": "ru"},
    ],
    ids=str,
)
def test_environment_names_language(environment: dict[str, str], russian: Catalog, tmp_path: Path) -> None:
    catalogue = found(compiled(russian, tmp_path), **environment)
    assert catalogue is not None
    assert (catalogue.text("Run {name}"), catalogue.language) == ("Запуск {name}", "ru")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LANG": ""},
        {"LANG": "C.UTF-8"},
        {"LC_ALL": "POSIX", "LANG": "ru"},
        {"LANG": "en_GB.UTF-8"},
        {"LANGUAGE": "en:ru"},
    ],
    ids=str,
)
def test_english_looks_for_no_file(
    environment: dict[str, str], russian: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = compiled(russian, tmp_path)
    monkeypatch.setattr(gettext, "translation", lambda *_: pytest.fail("it looked for a catalogue"))
    assert found(folder, **environment) is None


def test_unknown_language_is_english(tmp_path: Path) -> None:
    assert found(tmp_path, LANG="fi_FI.UTF-8") is None


def test_unknown_text_is_english(russian: Catalog, tmp_path: Path) -> None:
    catalogue = found(compiled(russian, tmp_path), LANG="ru")
    assert catalogue is not None
    assert (catalogue.text("Stop"), catalogue.text("")) == ("Stop", "")
    assert (catalogue.plural("day", "days", 1), catalogue.plural("day", "days", 2)) == ("day", "days")


@pytest.mark.parametrize(
    ("count", "text"), [(1, "1 номер"), (2, "2 номера"), (5, "5 номеров"), (21, "21 номер"), (1000, "1,000 номеров")]
)
def test_count_chooses_plural_form(count: int, text: str, russian: Catalog, tmp_path: Path) -> None:
    catalogue = found(compiled(russian, tmp_path), LANG="ru")
    assert catalogue is not None
    assert catalogue.plural(*MANY, count).format(count=count) == text


@pytest.mark.parametrize(
    ("translated", "text"),
    [
        ("Run", "Run {name}"),
        ("Run {name} {id}", "Run {name}"),
        ("Run {other}", "Run {name}"),
        ("Run {name:,}", "Run {name}"),
        ("Run {name!r}", "Run {name}"),
        ("Run {name.__class__}", "Run {name}"),
        ("Run {}", "Run {name}"),
        ("Run {name", "Run {name}"),
        ("Run }", "Run"),
        ("Run {name}", "Run"),
        ("", "Run"),
    ],
)
def test_unfit_translation_is_refused(translated: str, text: str) -> None:
    assert not fits(translated, text)


@pytest.mark.parametrize(
    ("translated", "texts"),
    [
        ("{name}: {name}", ("Run {name}",)),
        ("{b}, {a}", ("{a}, {b}",)),
        ("one is left", ("one is left", "{count} are left")),
        ("{count} is left", ("one is left", "{count} are left")),
        ("a } is no end", ("a } is no end",)),
    ],
)
def test_fit_translation_is_taken(translated: str, texts: tuple[str, ...]) -> None:
    assert fits(translated, *texts)


def test_unfit_translation_falls_back(tmp_path: Path) -> None:
    unfit = Catalog(locale="ru", domain="dispatchkit", fuzzy=False)
    unfit.add("Run {name}", "Запуск {other}")
    unfit.add(MANY, ("номер", "номера", "номеров"))
    catalogue = found(compiled(unfit, tmp_path), LANG="ru")
    assert catalogue is not None
    assert catalogue.text("Run {name}") == "Run {name}"
    assert [catalogue.plural(*MANY, count) for count in (1, 2)] == [*MANY]


def damaged(data: bytes) -> list[bytes]:
    """The file cut short, with a bit changed, and of another kind."""
    cut = [data[:length] for length in range(0, len(data), 31)]
    changed = [data[:place] + bytes([data[place] ^ 0x80]) + data[place + 1 :] for place in range(0, len(data), 7)]
    return [
        *cut,
        *changed,
        b"not a catalogue",
        data.replace(b"utf-8", b"utf-9"),
        data.replace(b"plural=", b"plural=0/"),
    ]


def test_damaged_file_is_survived(russian: Catalog, tmp_path: Path) -> None:
    file = compiled(russian, tmp_path) / "ru" / "LC_MESSAGES" / "dispatchkit.mo"
    for number, data in enumerate(damaged(file.read_bytes())):
        # gettext reads a file of one name only once.
        folder = tmp_path / str(number) / "ru" / "LC_MESSAGES"
        folder.mkdir(parents=True)
        (folder / "dispatchkit.mo").write_bytes(data)
        catalogue = found(tmp_path / str(number), LANG="ru")
        if catalogue is not None:
            catalogue.text("Run {name}").format(name="friday")
            for count in range(3):
                catalogue.plural(*MANY, count).format(count=count)
