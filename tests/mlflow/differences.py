"""Where ours is meant to differ from MLflow's own server, each with its reason.

Laws of `clients/laws` that are named here must fail against MLflow; everything else must hold.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.mlflow.clients.differential.pairs import Answer, Json, Operation, Pair

NO_FAULTS = (
    "a mistake of the caller's is no fault of the server's: clients repeat faults for minutes"
)
ONE_SPELLING = "names that can't be told apart by eye are one: a twin is how a model gets replaced"
ALIASES = "users ask for aliases wherever a version is shown"
ANY_SOURCE = "a source is an address for whoever loads the model; the server never opens it"
LENIENT = "what older and newer clients send is understood"

#: By the law's name.
LAWS: dict[str, str] = {
    "test_a_name_taken_again_goes_on_numbering": (
        "models:/NAME/1 shall never become another model than it was"
    ),
    "test_an_old_name_keeps_resolving_after_a_rename": (
        "what loads by the old name goes on working until the name is taken again"
    ),
    "test_a_rename_changes_no_version": (
        "a version's time says when the version changed; ten thousand of them need no write"
    ),
    "test_a_name_has_at_most_256_characters": (
        "a longer name does not fit MLflow's own column, but on SQLite"
    ),
    "test_names_that_can_not_be_told_apart_are_one": ONE_SPELLING,
    "test_a_found_version_knows_its_aliases": ALIASES,
    "test_latest_versions_of_a_found_model_know_their_aliases": ALIASES,
    "test_a_model_shows_the_aliases_of_its_latest_versions": ALIASES,
    "test_a_stage_that_archives_nobody_is_a_mistake_and_no_fault": NO_FAULTS,
    "test_nothing_that_is_wrong_with_a_request_is_a_fault": NO_FAULTS,
    "test_pages_neither_skip_nor_repeat_while_others_write": (
        "a page goes on after its last row, not after so many rows"
    ),
    "test_a_filter_may_say_more_than_mlflows": "users ask for stages, aliases and OR",
    "test_a_source_may_lie_on_any_host": ANY_SOURCE,
    "test_a_logged_model_that_nobody_knows_is_kept_as_the_source": ANY_SOURCE,
    "test_the_paths_of_the_first_clients_are_still_there": LENIENT,
    "test_required_fields_may_be_spelled_so_too": LENIENT,
}


@dataclass(frozen=True)
class Difference:
    """One way in which the answers to one request may differ, and what makes both alike again."""

    reason: str
    applies: Callable[[Operation, Answer, Answer], bool]
    mend: Callable[[Pair, Operation, Answer, Answer], None] | None = None


def _is_a_fault(operation: Operation, theirs: Answer, ours: Answer) -> bool:
    """MLflow answers 5xx; ours refuses, in the same words where MLflow chose them."""
    if theirs.status < 500 or ours.status not in {400, 404, 413}:
        return False
    chosen = ("Model version transition cannot archive", "`order_by` contains duplicate fields")
    text = str(theirs.body.get("message"))
    return not text.startswith(chosen) or ours.body.get("message") == text


def _is_unkeepable(operation: Operation, theirs: Answer, ours: Answer) -> bool:
    """MLflow keeps on SQLite what not every database can keep, or names another mistake."""
    nowhere = any("\0" in text for text in _texts(operation))
    most = {"key": 250, "name": 256, "new_name": 256, "run_id": 256, "run_link": 2048}
    most |= {"description": 5000, "source": 4096}
    too_long = any(len(operation.text(field)) > length for field, length in most.items())
    return ours.status == 400 and (nowhere or too_long) and ours.body != theirs.body


def _is_half_read(operation: Operation, theirs: Answer, ours: Answer) -> bool:
    """MLflow goes on with the fields before the one that it can't read; ours names that one."""
    fields = operation.fields
    tags = fields.get("tags") if isinstance(fields, dict) else None
    unreadable = (
        any(map(_has_surrogates, _texts(operation)))
        or (isinstance(tags, list) and not all(map(_is_a_tag, tags)))
        # Of these MLflow checks no types beforehand.
        or (isinstance(fields, dict) and any(key != key.lower() for key in fields))
    )
    named = "Hint: Value was of type" in str(ours.body.get("message"))
    return unreadable and ours.status == 400 and named and ours.body != theirs.body


def _is_repeated_otherwise(operation: Operation, theirs: Answer, ours: Answer) -> bool:
    """Both refuse alike, but repeat bytes that are no text in another way."""
    unreadable = any(map(_has_surrogates, _texts(operation)))
    return unreadable and theirs.status == ours.status >= 400 and theirs.code == ours.code


def _shows_its_driver(operation: Operation, theirs: Answer, ours: Answer) -> bool:
    """MLflow goes on with what its database said."""
    text = str(theirs.body.get("message"))
    told = text.partition(" Error: (")[0]
    return told != text and theirs.code == ours.code and ours.body.get("message") == told


def _asks_for_a_run(operation: Operation, theirs: Answer, ours: Answer) -> bool:
    """Both refuse a local source, MLflow because it does not know the run."""
    start = f"Invalid model version source: '{operation.text('source')}'."
    return (
        operation.path == "model-versions/create"
        and operation.text("run_id") != ""
        and theirs.status == ours.status == 400
        and all(str(answer.body.get("message")).startswith(start) for answer in (theirs, ours))
        and str(theirs.body["message"]).removeprefix(start).startswith(" The run_id")
    )


def _climbs_on_windows(operation: Operation, theirs: Answer, ours: Answer) -> bool:
    """Ours takes a backslash for what it is on some who load the model."""
    unsafe = "without relative path references present" in str(ours.body.get("message"))
    return "\\" in operation.text("source") and ours.status == 400 and unsafe


def _asks_for_nothing(operation: Operation, theirs: Answer, ours: Answer) -> bool:
    """MLflow gives something, of everything, to who asks for no models or fewer."""
    refused = ours.body.get("message", "").startswith("Invalid value for max_results. It must be")
    return operation.path == "registered-models/search" and refused


def _asks_for_more(operation: Operation, theirs: Answer, ours: Answer) -> bool:
    """MLflow refuses a filter that ours takes, and then finds nothing else to refuse."""
    if not operation.path.endswith("/search") or theirs.status < 400:
        return False
    text, other = (str(answer.body.get("message")) for answer in (theirs, ours))
    elsewhere = (
        *("Invalid order", "`order_by`", "Invalid attribute key"),
        *("Invalid value for max_results", "Invalid page token"),
    )
    return not text.startswith("Invalid order") and (ours.taken or other.startswith(elsewhere))


def _has_no_path(operation: Operation, theirs: Answer, ours: Answer) -> bool:
    """MLflow takes a prompt's placeholder, and a bucket alone, for a path where a model has it."""
    pathless = operation.text("source") in {"dummy-source", "prompt-template", "s3://"}
    return pathless and theirs.status == 400 and ours.body != theirs.body


def _has_two_mistakes(operation: Operation, theirs: Answer, ours: Answer) -> bool:
    """Both refuse a version: MLflow looks at the source first, ours at the name and the tags."""
    refused = {theirs.status, ours.status} <= {400, 404} and theirs.body != ours.body
    if not refused or operation.path != "model-versions/create":
        return False
    text, other = (str(answer.body.get("message")) for answer in (theirs, ours))
    source = "Invalid model version source: "
    earlier = (
        "Invalid model name",
        "Invalid value",
        "'key' exceeds",
        "Missing value for",
        "Registered Model",
    )
    return (text.startswith(source) and not other.startswith(source)) or (
        operation.text("source").startswith("models:/") and other.startswith(earlier)
    )


def _changes_nothing(operation: Operation, theirs: Answer, ours: Answer) -> bool:
    """MLflow takes the time of a change also where nothing changes."""
    changes = operation.path.endswith(("/update", "/transition-stage"))
    if not (changes and theirs.taken and ours.taken) or theirs.body == ours.body:
        return False
    ((_, before),), ((_, after),) = ours.body.items(), theirs.body.items()
    moment = after["last_updated_timestamp"]
    earlier: bool = before["last_updated_timestamp"] < moment
    return earlier and {**before, "last_updated_timestamp": moment} == after


def _ends_a_line(operation: Operation, theirs: Answer, ours: Answer) -> bool:
    """MLflow's patterns let a line break pass at the end."""
    tags = operation.fields.get("tags") if isinstance(operation.fields, dict) else None
    listed = tags if isinstance(tags, list) else []
    keys = [item.get("key") for item in listed if isinstance(item, dict)]
    texts = [operation.text("alias"), operation.text("key"), *keys]
    named = any(isinstance(text, str) and text.endswith("\n") for text in texts)
    return named and ours.status == 400 and ours.body != theirs.body


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _is_a_tag(item: Any) -> bool:
    return isinstance(item, dict) and all(
        isinstance(item.get(name, ""), str) for name in ("key", "value")
    )


def _is_a_bad_name(operation: Operation, theirs: Answer, ours: Answer) -> bool:
    """MLflow takes names that can't be read, typed or kept."""
    name = operation.text("name")
    return (
        operation.path == "registered-models/create"
        and theirs.taken
        and ours.status == 400
        and not is_a_name(name)
    )


def is_a_name(name: str) -> bool:
    """Whether a name can be read, typed and kept."""
    unreadable = any(unicodedata.category(character) in {"Cc", "Cs"} for character in name)
    spelled = unicodedata.normalize("NFC", name).strip()
    return not unreadable and len(name) <= 256 and name == spelled


def _texts(operation: Operation) -> list[str]:
    """Give every text of a request, those of tags too."""
    found: list[str] = []
    left: list[Any] = [operation.fields]
    while left:
        match left.pop():
            case str() as text:
                found.append(text)
            case list() as items:
                left += items
            case dict() as items:
                left += items.values()
    return found


def _undo(pair: Pair, operation: Operation) -> None:
    """Undo what MLflow did and ours refused."""
    from tests.mlflow.clients.differential.pairs import Operation as Request

    name, version = operation.text("name"), operation.text("version")
    noun, verb = operation.path.split("/")
    where = {"name": name, "version": version} if noun == "model-versions" else {"name": name}
    match verb:
        case "create" if noun == "registered-models":
            pair.mend(Request("DELETE", "registered-models/delete", where), None)
        case "create":
            # A number was given, and is not given again: ours gives it, and both delete it.
            plain = Request("POST", operation.path, {"name": name, "source": "s3://plain/model"})
            made = pair.mend(None, plain)
            where["version"] = made.body["model_version"]["version"]
            gone = Request("DELETE", "model-versions/delete", where)
            pair.mend(gone, gone)
        case "update":
            again = Request(
                "PATCH", operation.path, {**where, "description": f"mended {len(pair.ours.began)}"}
            )
            pair.mend(again, again)
        case "set-tag":
            gone = Request("DELETE", f"{noun}/delete-tag", {**where, "key": operation.text("key")})
            pair.mend(gone, gone)
        case "alias" if operation.method == "POST":
            named = {"name": name, "alias": operation.text("alias")}
            pair.mend(Request("DELETE", operation.path, named), None)
        case "alias" | "delete-tag":
            # What was not there is gone.
            pass
        case _:
            raise AssertionError(operation)


def _mend_theirs(pair: Pair, operation: Operation, theirs: Answer, _ours: Answer) -> None:
    if theirs.taken and not operation.reads:
        _undo(pair, operation)


def _touch(pair: Pair, operation: Operation, _theirs: Answer, _ours: Answer) -> None:
    """Change what a request named, so that both have the time of a change to it."""
    from tests.mlflow.clients.differential.pairs import Operation as Request

    where = {"name": operation.text("name"), "description": f"touched {len(pair.ours.began)}"}
    if version := operation.text("version"):
        again = Request("PATCH", "model-versions/update", {**where, "version": version})
        pair.mend(again, again)
    again = Request("PATCH", "registered-models/update", where)
    pair.mend(again, again)


def _mend_ours(pair: Pair, operation: Operation, _theirs: Answer, ours: Answer) -> None:
    """Delete the version that ours took and MLflow refused; its number is given there too."""
    from tests.mlflow.clients.differential.pairs import Operation as Request

    if not ours.taken:
        return
    where = {"name": operation.text("name")}
    pair.mend(Request("POST", operation.path, {**where, "source": "s3://plain/model"}), None)
    where["version"] = ours.body["model_version"]["version"]
    gone = Request("DELETE", "model-versions/delete", where)
    pair.mend(gone, gone)


#: In the differential test, by what they are called there.
ANSWERS: dict[str, Difference] = {
    "faults": Difference(NO_FAULTS, _is_a_fault),
    "names": Difference(
        "names are read and typed by people, and fit every database", _is_a_bad_name, _mend_theirs
    ),
    "halves": Difference(
        "a request is understood whole or not at all", _is_half_read, _mend_theirs
    ),
    "bytes": Difference("bytes that are no text are shown as such", _is_repeated_otherwise),
    "drivers": Difference("what a database says is for its operators", _shows_its_driver),
    "runs": Difference("who has the runs is elsewhere, and is not asked", _asks_for_a_run),
    "backslashes": Difference(
        "a source that climbs anywhere is refused", _climbs_on_windows, _mend_theirs
    ),
    "counts": Difference("no models, or fewer, can't be asked for", _asks_for_nothing),
    "order": Difference("of two mistakes either may be named", _has_two_mistakes),
    "lines": Difference("an alias or a key has no line break", _ends_a_line, _mend_theirs),
    "pathless": Difference("what has no path can't climb", _has_no_path, _mend_ours),
    "filters": Difference("users ask for stages, aliases and OR", _asks_for_more),
    "unchanged": Difference(
        "what changes nothing leaves no trace: who watches is not woken", _changes_nothing, _touch
    ),
    "texts": Difference(
        "what PostgreSQL can't keep, SQLite does not keep", _is_unkeepable, _mend_theirs
    ),
}


def mask(operation: Operation, body: Json) -> Json:
    """Leave out of an answer what ours fills in besides."""
    lists = operation.path.endswith("/search")
    shown = {key: _unaliased(value, lists) for key, value in body.items()}
    if operation.path.endswith("/rename"):
        # A rename changes no version: see the law.
        for version in shown.get("registered_model", {}).get("latest_versions", ()):
            del version["last_updated_timestamp"]
    return shown


def _unaliased(value: Any, lists: bool) -> Any:
    """Leave out aliases of versions in results of searches, and within models."""
    if isinstance(value, list):
        return [_unaliased(item, lists) for item in value]
    if not isinstance(value, dict):
        return value
    if "version" in value and "source" in value and lists:
        return {key: inner for key, inner in value.items() if key != "aliases"}
    latest = value.get("latest_versions")
    return value if latest is None else {**value, "latest_versions": _unaliased(latest, True)}
