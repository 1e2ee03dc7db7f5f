"""A registry back into MLflow, through its REST API: made once, found again by a second run.

MLflow numbers versions itself and dates what it makes. A version that gets another number than
its own carries a tag that says which it was, so that a second run knows it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stagewire import pb
from stagewire.migrate.mlflow import NO_STAGE, STAGES, Finding
from stagewire.migrate.mlflow_servers import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stagewire.migrate.mlflow_servers import Server

#: The tag of a version whose number MLflow did not keep.
NUMBER_TAG = "stagewire.version"
_VERSIONS = 1000
#: Numbers that the report's table names; JSON has them all.
_SHOWN = 5
_READY = pb.MODEL_VERSION_STATUS_READY


@dataclass
class Target:
    """Writes models and versions to one MLflow server."""

    server: Server
    #: The namespace's stages by name, and whether a version in one is in use.
    active: dict[str, bool]
    found: Callable[[Finding], object]
    fill_gaps: bool = False
    dry_run: bool = False
    created: int = 0
    changed: int = 0
    unchanged: int = 0
    #: By model, the numbers here of versions made now that have others there.
    numbers: dict[str, dict[int, int]] = field(default_factory=dict)
    _kept: dict[int, str] = field(default_factory=dict)

    def put(
        self, model: pb.Model, aliases: dict[str, int], versions: Sequence[pb.ModelVersion]
    ) -> None:
        """Write a model with its living versions, ascending; what is refused is reported."""
        subject = f"model {model.name!r}"
        try:
            there = self._model(model)
            known = self._versions(model.name) if there is not None else {}
            self._kept = {}
            for version in versions:
                self._version(model, version, known)
            self._tell_numbers(model.name)
            held = {a["alias"]: str(a["version"]) for a in (there or {}).get("aliases", ())}
            for alias, number in sorted(aliases.items()):
                self._alias(model.name, alias, number, held)
        except Refused as refusal:
            self._tell(subject, "", f"was not brought whole: {refusal}", "mend it and export again")

    def _tell(self, subject: str, field_: str, problem: str, remedy: str) -> None:
        self.found(Finding(subject, field_, problem, remedy))

    def _model(self, model: pb.Model) -> Any:
        """Create a model, or bring its description and tags up to date; answer what was there."""
        try:
            there = self.server.get("registered-models/get", name=model.name)["registered_model"]
        except Refused as refusal:
            if refusal.code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self.created += 1
            if not self.dry_run:
                self.server.create(
                    "registered-models/create",
                    name=model.name,
                    description=model.description,
                    tags=_tags(model.tags),
                )
            return None
        changes = [
            ("POST", "registered-models/set-tag", {"name": model.name, "key": k, "value": v})
            for k, v in _lacking(model.tags, there)
        ]
        if model.description != there.get("description", ""):
            body = {"name": model.name, "description": model.description}
            changes.append(("PATCH", "registered-models/update", body))
        self._change(changes)
        return there

    def _change(self, changes: Sequence[tuple[str, str, dict[str, str]]]) -> None:
        for method, path, body in changes:
            if not self.dry_run:
                self.server.change(method, path, **body)
        self.changed += bool(changes)
        self.unchanged += not changes

    def _versions(self, name: str) -> dict[int, Any]:
        """Read the versions that are there, by the number that they have here."""
        quoted = name.replace("'", "''")
        found: dict[int, Any] = {}
        # Newer servers hide the versions of prompts from those who do not ask for them.
        for more in ("", " AND tag.`mlflow.prompt.is_prompt` = 'true'"):
            token = ""
            while True:
                answer = self.server.get(
                    "model-versions/search",
                    filter=f"name = '{quoted}'{more}",
                    max_results=_VERSIONS,
                    page_token=token,
                )
                for row in answer.get("model_versions", ()):
                    tags = {tag["key"]: tag.get("value", "") for tag in row.get("tags", ())}
                    number = int(tags.get(NUMBER_TAG, row["version"]))
                    if NUMBER_TAG in tags or number not in found:
                        found[number] = row
                token = answer.get("next_page_token", "")
                if not token:
                    break
        return found

    def _version(self, model: pb.Model, version: pb.ModelVersion, known: dict[int, Any]) -> None:
        subject = f"version {version.version} of model {model.name!r}"
        if version.status != _READY:
            status = pb.ModelVersionStatus.Name(version.status)
            self._tell(
                subject,
                "status",
                f"was not brought: it is {status.removeprefix('MODEL_VERSION_STATUS_')}",
                "export it once it is READY",
            )
            return
        there = known.get(version.version)
        run_id = version.lineage.run_id
        if there is not None and (there.get("source", ""), there.get("run_id", "")) != (
            version.source,
            run_id,
        ):
            self._tell(
                subject,
                "version",
                "was not brought: under that number MLflow has another one",
                "export into an MLflow without a model of that name",
            )
            return
        try:
            if there is None:
                there = self._create(model, version, known)
            else:
                self._update(there, version)
            self._kept[version.version] = str(there["version"])
            self._stage(subject, there, version)
        except Refused as refusal:
            self._tell(subject, "", f"was not brought whole: {refusal}", "mend it and export again")

    def _create(
        self, model: pb.Model, version: pb.ModelVersion, known: dict[int, Any]
    ) -> dict[str, Any]:
        """Create a version, marked where MLflow will not give it its number."""
        following = max((int(row["version"]) for row in known.values()), default=0) + 1
        while self.fill_gaps and following < version.version:
            following = self._fill(version, following) + 1
        tags = dict(version.tags)
        if following != version.version:
            tags[NUMBER_TAG] = str(version.version)
        made: dict[str, Any] = {"version": str(following), "current_stage": NO_STAGE}
        if not self.dry_run:
            made = self._make(version, tags)
        self.created += 1
        known[version.version] = made
        if int(made["version"]) != version.version:
            self._mark(model.name, version.version, made, marked=NUMBER_TAG in tags)
        return made

    def _mark(self, name: str, number: int, made: Any, *, marked: bool) -> None:
        """Keep which number a version has there, for the report and for a second run."""
        self.numbers.setdefault(name, {})[number] = int(made["version"])
        if not marked:
            # The highest versions there were deleted: what follows was not to be foreseen.
            body = {"name": name, "version": str(made["version"])}
            tag = {"key": NUMBER_TAG, "value": str(number)}
            self.server.change("POST", "model-versions/set-tag", **body, **tag)

    def _tell_numbers(self, name: str) -> None:
        others = self.numbers.get(name)
        if not others:
            return
        shown = [f"{number} is {there}" for number, there in list(others.items())[:_SHOWN]]
        self._tell(
            f"model {name!r}",
            "versions",
            f"{len(others)} have other numbers in MLflow, which numbers them itself: "
            f"{', '.join(shown)}{', …' * (len(others) > _SHOWN)}",
            "--fill-gaps makes and deletes a version there for each number that is missing",
        )

    def _make(self, version: pb.ModelVersion, tags: dict[str, str]) -> dict[str, Any]:
        answer = self.server.create(
            "model-versions/create",
            name=version.model,
            source=version.source,
            run_id=version.lineage.run_id,
            run_link=version.lineage.run_link,
            description=version.description,
            tags=_tags(tags),
        )
        made: dict[str, Any] = answer["model_version"]
        return made

    def _fill(self, version: pb.ModelVersion, following: int) -> int:
        """Make a version and delete it, so that the next one gets the number after it."""
        if self.dry_run:
            return following
        # As the one that follows: MLflow looks at sources and runs, and would refuse others.
        number = self._make(version, {})["version"]
        place = {"name": version.model, "version": str(number)}
        self.server.change("DELETE", "model-versions/delete", **place)
        return int(number)

    def _update(self, there: Any, version: pb.ModelVersion) -> None:
        place = {"name": there["name"], "version": str(there["version"])}
        changes: list[tuple[str, str, dict[str, str]]] = [
            ("POST", "model-versions/set-tag", {**place, "key": k, "value": v})
            for k, v in _lacking(version.tags, there)
        ]
        if version.description != there.get("description", ""):
            body = {**place, "description": version.description}
            changes.append(("PATCH", "model-versions/update", body))
        self._change(changes)

    def _stage(self, subject: str, there: Any, version: pb.ModelVersion) -> None:
        """Move a version to the one stage that MLflow can show: the highest active, else any."""
        possible = [stage for stage in version.stages if stage in STAGES]
        chosen = max(
            possible, key=lambda s: (self.active.get(s, False), possible.index(s)), default=NO_STAGE
        )
        if lost := [stage for stage in version.stages if stage != chosen]:
            self._tell(
                subject,
                "stages",
                f"is not in {', '.join(lost)} there: MLflow has {', '.join(STAGES)}, and a version "
                "is in one of them",
                "use aliases for the others",
            )
        if chosen == there.get("current_stage", NO_STAGE) or self.dry_run:
            return
        self.server.change(
            "POST",
            "model-versions/transition-stage",
            name=version.model,
            version=str(there["version"]),
            stage=chosen,
            archive_existing_versions=False,
        )

    def _alias(self, name: str, alias: str, number: int, held: dict[str, str]) -> None:
        subject = f"alias {alias!r} of model {name!r}"
        if number not in self._kept:
            self._tell(subject, "", "was not brought: its version was not", "mend that one first")
            return
        if held.get(alias) == self._kept[number] or self.dry_run:
            return
        try:
            self.server.change(
                "POST",
                "registered-models/alias",
                name=name,
                alias=alias,
                version=self._kept[number],
            )
        except Refused as refusal:
            self._tell(subject, "", f"was not brought: {refusal}", "choose another name for it")


def _tags(tags: Any) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in sorted(tags.items())]


def _lacking(tags: Any, there: Any) -> list[tuple[str, str]]:
    held = {tag["key"]: tag.get("value", "") for tag in there.get("tags", ())}
    return [(key, value) for key, value in sorted(tags.items()) if held.get(key) != value]
