"""Which sources a version may be registered with: checked once, for every path that writes one.

The server never opens a source, but those who load models do: a source that climbs out of its
folder, or is a path of whoever reads it, is how files leak. What MLflow 3.18 checks against the
run's own record is checked here against the path itself, which names its run.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Literal, NamedTuple
from urllib.parse import unquote_plus, urlsplit

from stagewire.errors import FieldViolation, RegistryError

Policy = Literal["permissive", "traversal", "strict"]

FIELD = "version.source"
#: What prompts bring instead of files.
_PLACEHOLDERS = frozenset({"dummy-source", "prompt-template"})
#: Deeper encodings than this are no accident.
_MOST_DECODINGS = 10
_LOCAL_HOSTS = re.compile(r"\.|localhost.*|127\.0\.0\.1.*", re.IGNORECASE)


class Origin(NamedTuple):
    """The training run and the logged model that a version says it comes from, '' for neither."""

    run_id: str = ""
    logged_model_id: str = ""

    @property
    def ids(self) -> set[str]:
        """Give those that are known."""
        return {self.run_id, self.logged_model_id} - {""}


def names_a_version(source: str) -> bool:
    """Tell whether a source is a models:/ URI of a registered version, not of a logged model."""
    scheme, _, path = source.partition(":/")
    if scheme.lower() != "models":
        return False
    return bool(path) and not is_logged_model(source)


def is_logged_model(source: str) -> bool:
    """Tell whether a source is a models:/ URI of a model in MLflow's tracking."""
    scheme, _, path = source.partition(":/")
    return scheme.lower() == "models" and path.startswith("m-") and not set(path) & set("/@")


@dataclass(frozen=True, slots=True)
class Sources:
    """The rules that a server was told to hold sources to.

    `permissive` takes any; `traversal` refuses sources that climb, and local paths that lie
    neither in a folder of the version's run or logged model nor below one of `roots`; `strict`
    refuses besides what names another run or logged model than the version does.
    """

    policy: Policy = "traversal"
    roots: tuple[str, ...] = ()

    def check(self, source: str, origin: Origin) -> None:
        """Refuse SOURCE_UNSAFE and SOURCE_NOT_IN_RUN."""
        if self.policy == "permissive" or not source or source in _PLACEHOLDERS:
            return
        decoded = _decoded(source)
        if names_a_version(source):
            # Resolved rather than read as a path; names may hold what paths may not.
            return
        if _is_local(decoded):
            if not self._may_read(decoded, origin):
                raise _not_in_run(
                    source,
                    "is a local path outside the folders of its run: give the run_id whose "
                    "artifacts it is among, or let the server allow its folder as a source root",
                )
            return
        _refuse_climbing(source, decoded)
        if self.policy == "strict":
            _refuse_other_lineage(source, decoded, origin)

    def check_named(self, source: str, given: Origin, named: Origin) -> None:
        """Refuse a run or logged model that is not that of the version which `source` names."""
        other = any(mine and mine != its for mine, its in zip(given, named, strict=True))
        if self.policy == "strict" and other:
            raise _not_in_run(source, "names a version of another run or logged model")

    def _may_read(self, decoded: str, origin: Origin) -> bool:
        path = _local_path(decoded)
        if not path.startswith("/") or _climbs(path):
            return False
        parts = path.split("/")
        if origin.ids & set(parts):
            return True
        return any(_within(path, root) for root in self.roots)


#: For registries inside a process that vouches for its sources.
PERMISSIVE = Sources("permissive")


def _decoded(source: str) -> str:
    for _ in range(_MOST_DECODINGS):
        decoded = unquote_plus(source)
        if decoded == source:
            return source
        source = decoded
    raise _unsafe(source)


def _path(decoded: str) -> str:
    try:
        return urlsplit(decoded).path
    except ValueError:
        raise _unsafe(decoded) from None


def _is_local(decoded: str) -> bool:
    try:
        parts = urlsplit(decoded)
        host = parts.hostname or ""
    except ValueError:
        raise _unsafe(decoded) from None
    if parts.scheme == "file":
        if host and not _LOCAL_HOSTS.fullmatch(host):
            raise _unsafe(decoded)
        return True
    return not parts.scheme


def _local_path(decoded: str) -> str:
    return _path(decoded) if decoded[:5].lower() == "file:" else decoded


def _climbs(path: str) -> bool:
    """Tell whether a path would be another one once resolved."""
    if "\0" in path or ".." in re.split(r"[/\\]", path):
        return True
    plain = re.sub("/+", "/", path).rstrip("/")
    return posixpath.normpath(plain) != plain if plain else False


def _refuse_climbing(source: str, decoded: str) -> None:
    path = _path(decoded)
    if "\0" in decoded or ".." in re.split(r"[/\\]", decoded) or _climbs(path):
        raise _unsafe(source)
    if path and not path.startswith("/"):
        raise _unsafe(source)


def _refuse_other_lineage(source: str, decoded: str, origin: Origin) -> None:
    scheme = urlsplit(decoded).scheme
    parts = _path(decoded).strip("/").split("/")
    if scheme == "runs" and parts[0] != origin.run_id:
        raise _not_in_run(source, "names another run than run_id")
    if scheme == "models" and parts[0] != origin.logged_model_id:
        raise _not_in_run(source, "names another logged model than logged_model_id")
    if scheme == "mlflow-artifacts" and not origin.ids & set(parts):
        raise _not_in_run(source, "lies outside the artifacts of its run")


def _within(path: str, root: str) -> bool:
    root = root.rstrip("/") + "/"
    return (path.rstrip("/") + "/").startswith(root)


def _unsafe(source: str) -> RegistryError:
    text = f"{_quoted(source)} steps out of its path; give an absolute one without '..'"
    return RegistryError("SOURCE_UNSAFE", f"{FIELD}: {text}", fields=[FieldViolation(FIELD, text)])


def _not_in_run(source: str, why: str) -> RegistryError:
    text = f"{_quoted(source)} {why}"
    return RegistryError(
        "SOURCE_NOT_IN_RUN", f"{FIELD}: {text}", fields=[FieldViolation(FIELD, text)]
    )


def _quoted(source: str) -> str:
    clipped = source if len(source) <= 60 else f"{source[:60]}…"  # noqa: PLR2004  # as names do
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in clipped)
    return f'"{printable}"'
