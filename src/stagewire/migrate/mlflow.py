"""MLflow's registry as records of ours, and what of it differs or can't be brought.

Ids are made from what MLflow itself tells a model by, its name and the moment of its creation,
so that an import that is repeated finds what it brought before.
"""

from __future__ import annotations

import unicodedata
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from stagewire import errors, names, pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_MODELS = uuid.UUID("6f0d3a52-53c1-5e0a-9d3c-0c8a5a3f4c11")
DEFAULT_WORKSPACE = "default"
NO_STAGE = "None"
DELETED = "Deleted_Internal"
STAGES = ("Staging", "Production", "Archived")
_STATUSES = {
    "READY": pb.MODEL_VERSION_STATUS_READY,
    "PENDING_REGISTRATION": pb.MODEL_VERSION_STATUS_PENDING_REGISTRATION,
    "FAILED_REGISTRATION": pb.MODEL_VERSION_STATUS_FAILED_REGISTRATION,
}
# What the contract limits; texts above it are cut or left out, and reported either way.
_TEXT = 5000
_SOURCE = 4096
_RUN_ID = 256
_RUN_LINK = 2048
_USER = 256
_TAGS = 500
_TAG_KEY = 250
_TAG_VALUE = 100_000


class Unreadable(ValueError):
    """What --from names is no registry of MLflow, or can't be read; the text says the remedy."""


@dataclass
class Model:
    """A registered model as MLflow has it; times are milliseconds since 1970."""

    workspace: str
    name: str
    creation_time: int | None = None
    last_updated_time: int | None = None
    description: str = ""
    user_id: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)


@dataclass
class Version:
    """A model version as MLflow has it."""

    number: int
    creation_time: int | None = None
    last_updated_time: int | None = None
    description: str = ""
    user_id: str = ""
    stage: str = NO_STAGE
    source: str = ""
    storage_location: str = ""
    run_id: str = ""
    run_link: str = ""
    status: str = "READY"
    status_message: str = ""
    tags: dict[str, str] = field(default_factory=dict)


class Source(Protocol):
    """A registry of MLflow that can be read."""

    def workspaces(self) -> list[str]:
        """Name the workspaces."""
        ...

    def born(self, workspace: str) -> dict[str, int | None]:
        """Give the moment of each model's creation by its name."""
        ...

    def models(self, workspace: str) -> Iterator[tuple[Model, list[Version]]]:
        """Read each model with all its versions, by number; deleted ones where they are known."""
        ...

    def count(self, workspace: str) -> int:
        """Count the models and versions."""
        ...

    def remarks(self) -> list[Finding]:
        """Say what this source can't tell, or has beside models and versions."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


@dataclass(frozen=True)
class Finding:
    """What differs, or was not brought, and what to do about it."""

    subject: str
    field: str
    problem: str
    remedy: str


@dataclass
class Conversion:
    """Turns what MLflow has into records for one namespace."""

    namespace: str
    #: Stages of the namespace by their key.
    stages: Mapping[str, str]
    workspace: str
    #: When each model was created, by name; some versions are copies of another's.
    born: Mapping[str, int | None]
    #: Called with each finding.
    found: Callable[[Finding], object]
    models: int = 0
    versions: int = 0
    _spelled: dict[str, str] = field(default_factory=dict)

    def convert(self, model: Model, versions: list[Version]) -> Iterator[pb.RegistryRecord]:
        """Give the records of a model; none when it can't be brought."""
        name = self._name(model)
        if name is None:
            return
        subject = f"model {name!r}"
        living = [v for v in versions if v.stage != DELETED and self._possible(subject, v)]
        highest = max((v.number for v in versions), default=0)
        if gone := len([v for v in versions if v.stage == DELETED]):
            self._tell(
                subject,
                "versions",
                f"{gone} were deleted in MLflow",
                "none: their numbers stay taken",
            )
        self.models += 1
        yield pb.RegistryRecord(model=self._model(subject, name, model, highest))
        for version in living:
            self.versions += 1
            yield pb.RegistryRecord(version=self._version(name, model, version))
        yield from self._stages(name, model, living)
        yield from self._aliases(subject, model, {v.number for v in living})

    def id_of(self, name: str) -> str:
        """Give the id under which a model is kept here."""
        known = f"{self.namespace}/{self.workspace}/{name}/{self.born.get(name) or 0}"
        return uuid.uuid5(_MODELS, known).hex

    def _tell(self, subject: str, field_: str, problem: str, remedy: str) -> None:
        self.found(Finding(subject, field_, problem, remedy))

    def _name(self, model: Model) -> str | None:
        subject = f"model {model.name!r}"
        rename = "rename it in MLflow and import again"
        try:
            name = names.canonical_model(model.name, "name")
        except errors.RegistryError as error:
            self._tell(subject, "name", f"was not brought: {error.message}", rename)
            return None
        if self._spelled.setdefault(name, model.name) != model.name:
            other = self._spelled[name]
            self._tell(subject, "name", f"was not brought: it is spelled as {other!r}", rename)
            return None
        if name != model.name:
            self._tell(subject, "name", "is kept in Unicode NFC", "none")
        return name

    def _possible(self, subject: str, version: Version) -> bool:
        what = f"version {version.number} of {subject}"
        if not 1 <= version.number <= names.NUMBER_MAX:
            self._tell(what, "version", "was not brought: no such number", "register it anew")
            return False
        if len(version.source) > _SOURCE:
            self._tell(
                what,
                "source",
                f"was not brought: its source has {len(version.source):,} characters, at most "
                f"{_SOURCE:,} are kept",
                "register it anew from a shorter path",
            )
            return False
        return True

    def _model(self, subject: str, name: str, model: Model, highest: int) -> pb.ModelRecord:
        return pb.ModelRecord(
            model=pb.Model(
                namespace=self.namespace,
                name=name,
                id=self.id_of(model.name),
                description=self._cut(subject, "description", model.description, _TEXT),
                tags=self._tags(subject, model.tags),
                owner=self._cut(subject, "user_id", model.user_id, _USER),
                creator=self._cut(subject, "user_id", model.user_id, _USER),
                create_time=self._time(subject, "creation_timestamp", model.creation_time),
                update_time=_time(model.last_updated_time or model.creation_time),
            ),
            first_number=1,
            next_number=highest + 1,
            activity_time=_time(model.last_updated_time or model.creation_time),
        )

    def _version(self, name: str, model: Model, version: Version) -> pb.ModelVersion:
        subject = f"version {version.number} of model {name!r}"
        status = _STATUSES.get(version.status, pb.MODEL_VERSION_STATUS_READY)
        if version.status not in _STATUSES:
            self._tell(subject, "status", f"{version.status!r} is unknown, READY is kept", "none")
        changed = version.last_updated_time or version.creation_time
        message = pb.ModelVersion(
            namespace=self.namespace,
            model=name,
            model_id=self.id_of(model.name),
            version=version.number,
            source=self._clean(subject, "source", version.source),
            status=status,
            status_message=self._cut(subject, "status_message", version.status_message, _TEXT),
            description=self._cut(subject, "description", version.description, _TEXT),
            tags=self._tags(subject, version.tags),
            creator=self._cut(subject, "user_id", version.user_id, _USER),
            create_time=self._time(subject, "creation_timestamp", version.creation_time),
            update_time=_time(changed),
            activity_time=_time(changed),
            storage_uri=self._storage(subject, version),
        )
        lineage = pb.Lineage(
            logged_model_id=_logged_model(version.source),
            run_id=self._cut(subject, "run_id", version.run_id, _RUN_ID),
            run_link=self._cut(subject, "run_link", version.run_link, _RUN_LINK),
        )
        if parent := self._parent(version):
            lineage.parents.append(parent)
        if lineage.ByteSize():
            message.lineage.CopyFrom(lineage)
        return message

    def _storage(self, subject: str, version: Version) -> str:
        """Give where the files are, where the source does not say it itself."""
        location = self._clean(subject, "storage_location", version.storage_location)
        if len(location) > _SOURCE:
            what = f"has {len(location):,} characters, at most {_SOURCE:,}; the source stands"
            self._tell(subject, "storage_location", what, "register it anew from a shorter path")
            return version.source
        return location or version.source

    def _parent(self, version: Version) -> pb.ParentVersion | None:
        """Give the version that this one is a copy of, where its source says so."""
        if not version.source.startswith("models:/"):
            return None
        name, _, number = version.source.removeprefix("models:/").rpartition("/")
        if (
            name not in self.born
            or not number.isdecimal()
            or not 0 < int(number) < names.NUMBER_MAX
        ):
            return None
        return pb.ParentVersion(
            model=unicodedata.normalize("NFC", name),
            version=int(number),
            derivation=pb.DERIVATION_COPIED,
            model_id=self.id_of(name),
        )

    def _stages(
        self, name: str, model: Model, living: list[Version]
    ) -> Iterator[pb.RegistryRecord]:
        """Give who is in which stage; since when at the latest is all that MLflow knows."""
        moved: set[str] = set()
        for version in living:
            if version.stage in {"", NO_STAGE}:
                continue
            stage = self.stages.get(names.stage_key(version.stage))
            if stage is None:
                self._tell(
                    f"version {version.number} of model {name!r}",
                    "current_stage",
                    f"is in no stage here: there is no {version.stage!r} in namespace "
                    f"{self.namespace!r}",
                    f"stagewire stage create {version.stage}, and import again",
                )
                continue
            if stage not in moved:
                moved.add(stage)
                move = pb.StageMoveRecord(model_id=self.id_of(model.name), stage=stage, step=1)
                yield pb.RegistryRecord(move=move)
            yield pb.RegistryRecord(
                tenure=pb.StageTenureRecord(
                    model_id=self.id_of(model.name),
                    stage=stage,
                    version=version.number,
                    entered_step=1,
                    entered_time=_time(version.last_updated_time or version.creation_time),
                    entered_by=version.user_id[:_USER],
                    entered_reason="was there in MLflow",
                )
            )

    def _aliases(self, subject: str, model: Model, living: set[int]) -> Iterator[pb.RegistryRecord]:
        for alias, number in sorted(model.aliases.items()):
            if number not in living:
                self._tell(
                    subject,
                    f"alias {alias!r}",
                    f"was not brought: version {number} is not there",
                    "set it on another version",
                )
                continue
            try:
                names.check_alias(alias, "alias")
            except errors.RegistryError as error:
                self._tell(
                    subject,
                    f"alias {alias!r}",
                    f"was not brought: {error.message}",
                    f"stagewire alias set {model.name} NAME {number}",
                )
                continue
            yield pb.RegistryRecord(
                alias=pb.AliasTenureRecord(
                    model_id=self.id_of(model.name),
                    alias=alias,
                    version=number,
                    set_step=1,
                )
            )

    def _tags(self, subject: str, tags: Mapping[str, str]) -> dict[str, str]:
        kept: dict[str, str] = {}
        for key, value in sorted(tags.items()):
            what = f"tag {key[:60]!r}"
            clean = self._clean(subject, what, value)
            if not key or len(key) > _TAG_KEY or key != _without_nul(key):
                self._tell(
                    subject,
                    what,
                    f"was not brought: a key has 1 to {_TAG_KEY} characters, none of them NUL",
                    "set it under another key",
                )
            elif len(clean) > _TAG_VALUE:
                self._tell(
                    subject,
                    what,
                    f"was not brought: its value has {len(clean):,} characters, at most "
                    f"{_TAG_VALUE:,} are kept",
                    "keep the text in a file, and its address in the tag",
                )
            elif len(kept) == _TAGS:
                self._tell(
                    subject, what, f"was not brought: there are {_TAGS} others", "set fewer tags"
                )
            else:
                kept[key] = clean
        return kept

    def _cut(self, subject: str, field_: str, text: str, most: int) -> str:
        text = self._clean(subject, field_, text)
        if len(text) <= most:
            return text
        self._tell(
            subject,
            field_,
            f"has {len(text):,} characters; the first {most:,} were brought",
            "shorten it in MLflow to choose what is kept",
        )
        return text[:most]

    def _clean(self, subject: str, field_: str, text: str) -> str:
        clean = _without_nul(text)
        if clean != text:
            self._tell(
                subject, field_, "had NUL characters or halves of surrogates", "none: they are gone"
            )
        return clean

    def _time(self, subject: str, field_: str, millis: int | None) -> Timestamp | None:
        if not millis:
            self._tell(subject, field_, "is unknown to MLflow; the import's time is kept", "none")
        return _time(millis)


def _time(millis: int | None) -> Timestamp | None:
    if not millis or millis < 0:
        return None
    return Timestamp(seconds=millis // 1000, nanos=millis % 1000 * 1_000_000)


def _logged_model(source: str) -> str:
    """Give the id of the logged model that a source names."""
    name = source.removeprefix("models:/")
    named = source.startswith("models:/m-") and not set(name) & set("/@")
    return name[:_RUN_ID] if named else ""


def _without_nul(text: str) -> str:
    if text.isascii():
        return text.replace("\0", "")
    return "".join(c for c in text if c != "\0" and unicodedata.category(c) != "Cs")
