"""Texts of the command line in the language of the user, by the standard library's `gettext`.

The language is chosen once, when this module is imported. Help texts and constants are made at import too, after that.
So they are translated there, and nothing has to be lazy. Without a catalogue, a text is returned as it is.

No catalogue can end a command. Where the file is damaged, or a translation lacks a placeholder of its text or has
another one, the text is shown in English.
"""

from __future__ import annotations

import gettext
import os
import re
from collections.abc import Iterator, Mapping, Sequence

__all__ = ["DOMAIN", "LANGUAGE", "N_", "Catalogue", "_", "find_catalogue", "fits", "ngettext"]

DOMAIN = "dispatchkit"
_FOLDER = os.path.join(os.path.dirname(__file__), "locale")  # noqa: PTH118, PTH120 - --help does without pathlib
_VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
_ENGLISH = frozenset({"", "C", "POSIX", "en"})


class Catalogue:
    """The translations of one language.

    Args:
        translations: The entries of the file.

    Attributes:
        language: The code of the language, such as ``pt-BR``; empty if the file does not name it.
    """

    def __init__(self, translations: gettext.NullTranslations) -> None:
        self.language = translations.info().get("language", "").replace("_", "-")
        self._translations = translations
        self._checked: dict[str, str] = {}

    def text(self, text: str) -> str:
        """The translation of a text, or the text itself where no translation fits."""
        if not text:  # its entry is the header of the file
            return ""
        known = self._checked.get(text)
        if known is None:
            translated = self._translations.gettext(text)
            known = self._checked[text] = translated if fits(translated, text) else text
        return known

    def plural(self, singular: str, plural: str, count: int) -> str:
        """The translation for a count, or the English text where no translation fits."""
        try:
            translated = self._translations.ngettext(singular, plural, count)
        except (ArithmeticError, ValueError):  # the formula of the plural forms divides by zero, say
            translated = ""
        return translated if fits(translated, singular, plural) else _english(singular, plural, count)

    def has_fitting(self, texts: Sequence[str]) -> bool:
        """Whether each of these texts can be looked up without a check."""
        return all(fits(self._translations.gettext(text), text) for text in texts)


def fits(translated: str, *texts: str) -> bool:
    """Whether a translation can be formatted in place of its text, or of its singular and plural.

    Each placeholder must stand in one of the texts, and those that stand in all of them must not be missing.
    """
    try:
        first, *others = (_placeholders(text) for text in texts)
    except ValueError:  # a brace that begins no placeholder: the text is not formatted
        return translated != ""
    try:
        found = _placeholders(translated)
    except ValueError:
        return False
    return translated != "" and first.intersection(*others) <= found <= first.union(*others)


def find_catalogue(environment: Mapping[str, str]) -> Catalogue | None:
    """The catalogue of the user's language; None for English, and for a language that has none.

    The first of LANGUAGE, LC_ALL, LC_MESSAGES and LANG that is set names the language, or several in the order of
    preference. DISPATCHKIT_LOCALE_DIR names a folder to search instead of the package's own.
    """
    languages = [*_before_english(environment)]
    if not languages:
        return None
    try:
        return Catalogue(gettext.translation(DOMAIN, _folder(environment), languages))
    except Exception:  # noqa: BLE001 - there is none, or it is damaged in one of many ways
        return None


def _(text: str) -> str:
    """A text in the language of the user. Placeholders are filled afterwards: ``_("{id} is done").format(id=7)``."""
    return text if _CATALOGUE is None else _CATALOGUE.text(text)


def ngettext(singular: str, plural: str, count: int) -> str:
    """The text for a count: ``ngettext("{count:,} id", "{count:,} ids", count).format(count=count)``."""
    if _CATALOGUE is None:
        return _english(singular, plural, count)
    return _CATALOGUE.plural(singular, plural, count)


def N_(text: str) -> str:  # noqa: N802 - the name that extraction tools know
    """Mark a text that `_` looks up where it is shown. It is returned as it is."""
    return text


def _english(singular: str, plural: str, count: int) -> str:
    return singular if count == 1 else plural


def _folder(environment: Mapping[str, str]) -> str:
    return environment.get("DISPATCHKIT_LOCALE_DIR") or _FOLDER


def _before_english(environment: Mapping[str, str]) -> Iterator[str]:
    """The languages that the user prefers to English, which has no catalogue."""
    wanted = next((value for name in _VARIABLES if (value := environment.get(name))), "")
    for language in wanted.split(":"):
        if re.split("[_.@]", language, maxsplit=1)[0] in _ENGLISH:
            return
        yield language


def _placeholders(text: str) -> set[tuple[str, str | None, str | None]]:
    """The name, the format and the conversion of each placeholder.

    Raises:
        ValueError: The text has a brace that begins none.
    """
    from string import Formatter  # noqa: PLC0415 - English does without

    parts = Formatter().parse(text)
    return {(name, spec, conversion) for _literal, name, spec, conversion in parts if name is not None}


_OF_TYPER = (N_("default: {default}"), N_("env var: {var}"), N_("required"))
"""Texts that Typer adds to help texts. It looks them up in the domain of the process, and checks none."""

_CATALOGUE = find_catalogue(os.environ)
if _CATALOGUE is not None and _CATALOGUE.has_fitting(_OF_TYPER):
    gettext.bindtextdomain(DOMAIN, _folder(os.environ))
    gettext.textdomain(DOMAIN)

LANGUAGE = "" if _CATALOGUE is None else _CATALOGUE.language
"""The code of the language of the texts; empty for English."""
