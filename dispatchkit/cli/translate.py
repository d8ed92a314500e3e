"""Texts of the command line in the language of the user, by the standard library's `gettext`.

The language is chosen once, when this module is imported. So `_` works in a constant and in a help text, which are
made at import: nothing has to be lazy. Without a catalogue, a text is returned as it is.

A catalogue is a file of another person. Whatever is wrong with it, the text is shown in English and the command goes
on: where the file is damaged, and where a translation has other placeholders than its text.
"""

from __future__ import annotations

import gettext
import os
import re
from collections.abc import Iterator, Mapping, Sequence

__all__ = ["DOMAIN", "LANGUAGE", "N_", "Catalogue", "_", "find_catalogue", "fits", "ngettext"]

DOMAIN = "dispatchkit"
_LOCALE_DIR = os.path.join(os.path.dirname(__file__), "locale")  # noqa: PTH118, PTH120 - pathlib would cost time
_VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
_ENGLISH = frozenset({"", "C", "POSIX", "en"})


class Catalogue:
    """The translations of one language.

    Args:
        translations: What the catalogue's file holds.

    Attributes:
        language: The code of the language, such as ``ru``; empty if the file does not tell it.
    """

    def __init__(self, translations: gettext.NullTranslations) -> None:
        self.language = translations.info().get("language", "").replace("_", "-")
        self._translations = translations
        self._checked: dict[str, str] = {}

    def text(self, text: str) -> str:
        """The translation of a text, or the text itself where no translation fits."""
        if not text:  # where the catalogue has its own header
            return ""
        known = self._checked.get(text)
        if known is None:
            translated = self._translations.gettext(text)
            known = self._checked[text] = translated if fits(translated, text) else text
        return known

    def plural(self, singular: str, plural: str, count: int) -> str:
        """The translation for this count, or the English text where no translation fits."""
        try:
            translated = self._translations.ngettext(singular, plural, count)
        except (ArithmeticError, ValueError):  # the formula of the plural forms divides by zero, say
            translated = ""
        return translated if fits(translated, singular, plural) else _english(singular, plural, count)


def fits(translated: str, *texts: str) -> bool:
    """Whether a translation can be formatted in place of its text, or of its singular and plural.

    Each placeholder must stand in one of the texts, and those that stand in all of them must not be missing.
    """
    try:
        expected = [set(_placeholders(text)) for text in texts]
    except ValueError:  # the text has a brace and no placeholder
        return translated != ""
    try:
        found = set(_placeholders(translated))
    except ValueError:
        return False
    first, *others = expected
    return translated != "" and first.intersection(*others) <= found <= first.union(*others)


def find_catalogue(environment: Mapping[str, str]) -> Catalogue | None:
    """The catalogue of the user's language; None for English, and for a language that has none.

    As with every program, the first of LANGUAGE, LC_ALL, LC_MESSAGES and LANG that is set names the language.
    DISPATCHKIT_LOCALE_DIR names another folder than the package's own.
    """
    wanted = next((value for name in _VARIABLES if (value := environment.get(name))), "")
    languages = [*_before_english(wanted.split(":"))]
    if not languages:
        return None
    folder = environment.get("DISPATCHKIT_LOCALE_DIR") or _LOCALE_DIR
    try:
        translations = gettext.translation(DOMAIN, folder, languages)
    except Exception:  # noqa: BLE001 - there is none, or it is damaged in one of many ways
        return None
    if all(fits(translations.gettext(text), text) for text in _OF_TYPER):
        # Typer looks its texts up by itself, in the domain of the process, and checks none.
        gettext.bindtextdomain(DOMAIN, folder)
        gettext.textdomain(DOMAIN)
    return Catalogue(translations)


def _(text: str) -> str:
    """A text in the language of the user. Placeholders are filled afterwards: ``_("{id} is done").format(id=7)``."""
    return text if _CATALOGUE is None else _CATALOGUE.text(text)


def ngettext(singular: str, plural: str, count: int) -> str:
    """The text for a count: ``ngettext("{count:,} id", "{count:,} ids", count).format(count=count)``."""
    if _CATALOGUE is None:
        return _english(singular, plural, count)
    return _CATALOGUE.plural(singular, plural, count)


def N_(text: str) -> str:  # noqa: N802 - the field's name
    """Mark a text that is looked up elsewhere, so that it gets into the catalogues."""
    return text


def _english(singular: str, plural: str, count: int) -> str:
    return singular if count == 1 else plural


def _before_english(languages: Sequence[str]) -> Iterator[str]:
    """The languages that the user prefers to English, which has no catalogue."""
    for language in languages:
        if re.split("[_.@]", language)[0] in _ENGLISH:
            return
        yield language


def _placeholders(text: str) -> Iterator[tuple[str, str | None, str | None]]:
    from string import Formatter  # noqa: PLC0415 - English does without

    return (
        (name, spec, conversion) for _literal, name, spec, conversion in Formatter().parse(text) if name is not None
    )


_OF_TYPER = (N_("default: {default}"), N_("env var: {var}"), N_("required"))
_CATALOGUE = find_catalogue(os.environ)

LANGUAGE = "" if _CATALOGUE is None else _CATALOGUE.language
"""The code of the language of the texts; empty for English."""
