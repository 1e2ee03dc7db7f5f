"""What MLflow checks of names, tags, aliases and version numbers before it looks anything up.

Only what has a text that clients see; what else can't be stored, the registry refuses itself.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from stagewire import names
from stagewire.mlflow import errors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stagewire.mlflow.shapes import Tag

TAG_KEY_LENGTH = 250
TAG_VALUE_LENGTH = 100_000
PROMPT_TAG = "mlflow.prompt.is_prompt"
_PROMPT_TEXT_TAG = "mlflow.prompt.text"
_PROMPT_SOURCES = frozenset({"dummy-source", "prompt-template"})

_KEY = re.compile(r"[/\w.\- :]*")
_ALIAS = re.compile(r"[\w\-]*")
_VERSION_ALIAS = re.compile(r"[vV]\d+")


def model_name(name: str) -> None:
    """Refuse what is no name of a model."""
    if not name.strip():
        raise errors.missing("name")
    if "/" in name or ":" in name:
        raise errors.invalid(f"Invalid model name '{name}'. Names cannot contain '/' or ':'.")
    if _is_another_path(name):
        raise errors.invalid_value("name", name, _other_path(name))


def new_model_name(name: str) -> None:
    """Refuse what a model can't be renamed to."""
    if not name.strip():
        raise errors.missing("new_name")
    model_name(name)


def version_number(text: str) -> int:
    """Read a version's number, as Python reads integers."""
    try:
        return int(text)
    except ValueError:
        message = f"Parameter 'version' must be an integer, got '{text}'."
        raise errors.invalid(message) from None


def existing_version(name: str, text: str) -> int:
    """Read the number of a version that may exist; those that can't are not found."""
    number = version_number(text)
    if not 1 <= number <= names.NUMBER_MAX:
        raise errors.absent_version(name, number)
    return number


def tag_key(key: str) -> None:
    """Refuse what is no key of a tag."""
    if not _KEY.fullmatch(key):
        raise errors.invalid_value(
            "key",
            key,
            "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), "
            "spaces ( ), colon(:) and slashes (/).",
        )
    if _is_another_path(key):
        raise errors.invalid_value("key", key, _other_path(key))


def model_tags(tags: Iterable[Tag]) -> dict[str, str]:
    """Check the tags of a model; of two with one key the last counts."""
    return _checked(tags)


def version_tags(tags: Iterable[Tag]) -> dict[str, str]:
    """Check the tags of a version; of two with one key the last counts."""
    return _checked(tags, prompts=True)


def _checked(tags: Iterable[Tag], *, prompts: bool = False) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in tags:
        tag_key(key)
        _length("key", key, TAG_KEY_LENGTH)
        if prompts and key == _PROMPT_TEXT_TAG and len(value) > TAG_VALUE_LENGTH:
            raise errors.invalid(
                f"Prompt text exceeds max length of {TAG_VALUE_LENGTH} characters."
            )
        _length("value", value, TAG_VALUE_LENGTH)
        found[key] = value
    return found


def alias(text: str) -> None:
    """Refuse what is no alias."""
    if not text:
        raise errors.invalid("Registered model alias name cannot be empty.")
    if not _ALIAS.fullmatch(text):
        raise errors.invalid(
            f"Invalid alias name: '{text}'. Names may only contain alphanumerics, underscores (_), "
            "and dashes (-)."
        )
    _length("Registered model alias name", text, names.ALIAS_MAX_LENGTH)


def new_alias(text: str) -> None:
    """Refuse what can't be set as an alias."""
    alias(text)
    if text.lower() == "latest":
        raise errors.invalid("'latest' alias name (case insensitive) is reserved.")
    if _VERSION_ALIAS.fullmatch(text):
        raise errors.invalid(f"Version alias name '{text}' is reserved.")


def marks_prompt(tags: dict[str, str]) -> bool:
    """Tell whether these tags make a model or version a prompt."""
    return tags.get(PROMPT_TAG, "false").lower() == "true"


def prompt_source(source: str) -> None:
    """Refuse a prompt with files: its text is in a tag."""
    if source not in _PROMPT_SOURCES:
        raise errors.invalid(
            f"Invalid prompt source: '{source}'. Prompt sources must use an MLflow placeholder."
        )


def _length(what: str, text: str, most: int) -> None:
    if len(text) > most:
        raise errors.invalid(f"'{what}' exceeds the maximum length of {most} characters")


def _is_another_path(name: str) -> bool:
    path = posixpath.normpath(name)
    return path != name or path == "." or path.startswith(("..", "/"))


def _other_path(name: str) -> str:
    return (
        "Names may be treated as files in certain cases, and must not resolve to other names when "
        f"treated as such. This name would resolve to {posixpath.normpath(name)!r}"
    )
