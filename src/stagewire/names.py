"""How names are spelled: one canonical form of each, and what can't be a name.

What is created goes through `canonical_*` or `check_*`, which refuse; what is looked up goes
through `lookup_model` or `stage_key`, which only bring it into the form that is stored.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from stagewire.errors import invalid

DEFAULT_NAMESPACE = "default"
#: Who calls when nobody says.
ANONYMOUS = "anonymous"
MODEL_MAX_LENGTH = 256
STAGE_MAX_LENGTH = 128
SUBJECT_MAX_LENGTH = 256
#: How subjects begin that are not of this registry's own naming.
KINDS_OF_SUBJECT = ("oidc:", "cert:", "group:")
ALIAS_MAX_LENGTH = 255
#: The protos give a version number 32 bits.
NUMBER_MAX = 2**31 - 1
#: No spelling of a name that can be kept is longer: decomposed, a character is four at most, and
#: folded three. Normalising takes time that grows with the square of what marks are in a text.
_LONGEST_SPELLING = 4 * 3 * MODEL_MAX_LENGTH
#: How much of a refused name is repeated in the refusal.
_QUOTED_LENGTH = 60

_UNSPEAKABLE = {"Cc": "control character", "Cs": "lone surrogate"}
_ALIAS = re.compile(r"[\w.-]+")
_VERSION_ALIAS = re.compile(r"v[0-9]+", re.IGNORECASE)
#: None is MLflow's word for no stage; "latest" is no stage but a selector of its own.
_RESERVED_STAGES = frozenset({"none", "latest"})
#: Nobody, and the server itself.
_RESERVED_SUBJECTS = frozenset({ANONYMOUS, "stagewire"})


class Selector(NamedTuple):
    """Which version of a model is meant; nothing set means the newest living one."""

    version: int = 0
    stage: str = ""
    alias: str = ""


def canonical_model(name: str, field: str = "model.name") -> str:
    """Return the one spelling under which a model's name is kept; refuse what is no name."""
    canonical = _canonical(name, field, forbidden="/:", max_length=MODEL_MAX_LENGTH)
    if canonical in {".", ".."}:
        raise invalid(field, f'"{canonical}" means a folder in a path; choose another name')
    return canonical


def lookup_model(name: str) -> str:
    """Return the spelling under which a model of this name would be kept; refuses nothing."""
    return name if len(name) > _LONGEST_SPELLING else unicodedata.normalize("NFC", name)


def canonical_stage(name: str, field: str) -> str:
    """Return the spelling in which a stage's name is answered; refuse what is no name."""
    canonical = _canonical(name, field, forbidden="/:@", max_length=STAGE_MAX_LENGTH)
    if stage_key(canonical) in _RESERVED_STAGES:
        raise invalid(field, f'"{canonical}" is reserved in any letter case; choose another name')
    if _is_number(canonical):
        raise invalid(
            field, f'"{canonical}" would be read as a version number; add a letter to the name'
        )
    return canonical


def stage_key(name: str) -> str:
    """Return what two spellings of one stage have in common, whatever their letter case."""
    if len(name) > _LONGEST_SPELLING:
        return name
    # Decomposed before folding, as Unicode's canonical caseless matching does: folding a
    # composed letter can leave marks in another order than folding its parts.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def canonical_subject(subject: str, field: str) -> str:
    """Return the one spelling of whoever has grants; refuse what is none."""
    canonical = _canonical(subject, field, forbidden="", max_length=SUBJECT_MAX_LENGTH)
    kind, colon, name = canonical.partition(":")
    if colon and (f"{kind}:" not in KINDS_OF_SUBJECT or not name):
        raise invalid(
            field,
            f"{_quoted(canonical)} has ':', which only oidc:NAME, cert:SAN and group:NAME have",
        )
    if canonical in _RESERVED_SUBJECTS:
        raise invalid(field, f'"{canonical}" is reserved; choose another name')
    return canonical


def check_alias(alias: str, field: str) -> None:
    """Refuse what can't be an alias: it must never be mistaken for a number or "latest"."""
    if not alias:
        raise invalid(field, "is required: give the alias a name")
    if len(alias) > ALIAS_MAX_LENGTH:
        raise invalid(
            field, f"must have at most {ALIAS_MAX_LENGTH} characters, has {len(alias)}; shorten it"
        )
    if not _ALIAS.fullmatch(alias):
        raise invalid(
            field,
            f"{_quoted(alias)} is no alias; use letters, digits, '.', '_' and '-' only",
        )
    if alias.lower() == "latest":
        raise invalid(field, f'"{alias}" always means the newest version; choose another alias')
    if _VERSION_ALIAS.fullmatch(alias):
        raise invalid(field, f'"{alias}" would be read as a version number; choose another alias')


def namespace_or_default(name: str) -> str:
    """Return the namespace that a request means."""
    return name or DEFAULT_NAMESPACE


def parse_models_uri(uri: str) -> tuple[str, Selector]:
    """Return the model and version that a `models:/` URI names, as MLflow reads it.

    Nothing is percent-decoded, and the last `@` divides: model names may hold `%` and `@`.
    """
    scheme, _, path = uri.partition(":/")
    if scheme.lower() != "models" or path.startswith("/"):
        raise _no_models_uri(uri)
    model, slash, selector = path.partition("/")
    if slash:
        if not model or not selector.strip() or "/" in selector:
            raise _no_models_uri(uri)
        return lookup_model(model), _selector(selector)
    model, _, alias = path.rpartition("@")
    if not model or not alias:
        raise _no_models_uri(uri)
    return lookup_model(model), Selector(alias=alias)


def _selector(text: str) -> Selector:
    if text.lower() == "latest":
        return Selector()
    if not _is_number(text):
        return Selector(stage=text)
    # Compared as text first: int() refuses thousands of digits with an error of its own.
    digits = text.lstrip("0")
    number = int(digits or "0") if len(digits) <= len(str(NUMBER_MAX)) else NUMBER_MAX + 1
    if not 1 <= number <= NUMBER_MAX:
        raise invalid(
            "uri", f"version {_quoted(text)} can't exist; numbers go from 1 to {NUMBER_MAX}"
        )
    return Selector(version=number)


def _canonical(name: str, field: str, *, forbidden: str, max_length: int) -> str:
    canonical = unicodedata.normalize("NFC", name)
    if not canonical:
        raise invalid(field, "is required: give it a name")
    if len(canonical) > max_length:
        raise invalid(
            field, f"must have at most {max_length} characters, has {len(canonical)}; shorten it"
        )
    for position, character in enumerate(canonical, start=1):
        if character in forbidden:
            raise invalid(
                field,
                f"{_quoted(canonical)} has '{character}' at {position}, which parts paths"
                " and URIs; use '-' or '.' instead",
            )
        kind = _UNSPEAKABLE.get(unicodedata.category(character))
        if kind is not None:
            raise invalid(
                field,
                f"has a {kind} (U+{ord(character):04X}) at {position}; remove it",
            )
    if canonical != canonical.strip():
        raise invalid(field, f"{_quoted(canonical)} begins or ends with white space; remove it")
    return canonical


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _no_models_uri(uri: str) -> Exception:
    return invalid(
        "uri",
        f"{_quoted(uri)} can't be read; write models:/NAME/3, models:/NAME/STAGE,"
        " models:/NAME/latest or models:/NAME@ALIAS",
    )


def _quoted(text: str) -> str:
    clipped = text if len(text) <= _QUOTED_LENGTH else f"{text[:_QUOTED_LENGTH]}…"
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in clipped)
    return f'"{printable}"'
