"""Languages of the built-in pages: the browser's choice, and the texts of each.

English texts are in the code; they are also the keys of the other languages' texts,
which are in one JSON file per language. Braces in a text mark values, such as ``{host}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache

import orjson

from ..messages import Header
from .package_data import read_data

ENGLISH = "en"
LANGUAGES = (ENGLISH, "de", "es", "fr", "ja", "pt", "zh")
# The texts of the templates, by their field in ``.Texts``.
LABELS = {
    "Continue": "Sign in to continue",
    "EnterUsername": "Enter your username.",
    "GoBack": "Go back",
    "Incorrect": "Incorrect username or password.",
    "Or": "or",
    "OtherAccount": "Sign in with another account",
    "Password": "Password",
    "RequestID": "Request ID:",
    "Requested": "Requested page:",
    "SignIn": "Sign in",
    "SignInAgain": "Sign in again",
    "TooManyAttempts": "Too many sign-in attempts. Wait one minute, then try again.",
    "TryAgain": "Try again",
    "Username": "Username",
}
MAX_RANGES = 20  # of an Accept-Language field; further ones are ignored
MAX_FIELD_BYTES = 1000  # of Accept-Language; the rest is ignored
QUALITY = re.compile(rb"q=([01](?:\.[0-9]{0,3})?)")  # RFC 9110 §12.4.2


def choose_language(headers: Sequence[Header]) -> str:
    """Return the language that the browser prefers, English if there is none of its.

    A range matches by its first subtag (lookup, RFC 4647 §3.4).
    """
    best, best_quality = ENGLISH, 0.0
    field = next((value for name, value in headers if name == b"accept-language"), b"")
    for text in field[:MAX_FIELD_BYTES].split(b",", MAX_RANGES)[:MAX_RANGES]:
        tag, _, weight = text.partition(b";")
        language = tag.strip().partition(b"-")[0].lower().decode("latin-1")
        found = QUALITY.fullmatch(weight.translate(None, b" \t") or b"q=1")
        if language not in LANGUAGES or found is None:
            continue
        if (quality := float(found[1])) > best_quality:
            best, best_quality = language, quality
    return best


class Texts:
    """The texts of one language; ``labels`` are those of the templates."""

    def __init__(self, language: str, texts: Mapping[str, str]) -> None:
        self.language = language
        self._texts = texts
        self.labels = {name: self.text(text) for name, text in LABELS.items()}

    def text(self, english: str, values: Mapping[str, str] | None = None) -> str:
        """Return the translation of *english* with *values* in place of its names."""
        text = self._texts.get(english, english)
        return text.format_map(values) if values else text


@cache
def texts_of(language: str) -> Texts:
    """Return the texts of one of `LANGUAGES`."""
    if language == ENGLISH:
        return Texts(ENGLISH, {})
    return Texts(language, orjson.loads(read_data(f"languages/{language}.json")))
