"""MLflow's own server and ours, driven side by side by the same random requests."""

from __future__ import annotations

import itertools
import os
import time
import unicodedata

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.mlflow.clients.differential import operations as ops
from tests.mlflow.clients.differential.pairs import Answer, Json, Operation, Pair
from tests.mlflow.differences import ANSWERS, is_a_name, mask

PAIR = Pair(os.environ["THEIRS"], os.environ["OURS"])
EXAMPLES = int(os.environ.get("STAGEWIRE_DIFFERENTIAL_EXAMPLES", "60"))
SHRINKS = "STAGEWIRE_DIFFERENTIAL_SHRINKS" in os.environ
LONG = "STAGEWIRE_DIFFERENTIAL_EXAMPLES" in os.environ

#: No name is used in two runs, also where servers outlive the session.
_SESSION, _RUNS = f"{time.time_ns():x}", itertools.count(100_000)


class SideBySide(RuleBasedStateMachine):
    """The same requests to both, whose answers must be the same.

    Names are never used again once they were given up: what then differs is intended, and laws
    tell it.
    """

    @initialize()
    def begin(self) -> None:
        PAIR.empty()
        self.prefix = f"{_SESSION}-{next(_RUNS)}-"
        self.names: list[str] = []
        self.given_up: set[str] = set()
        self.alike = True
        self.most_versions = 0

    # What is asked, and what is made of it.

    def send(self, operation: Operation) -> Answer | None:
        """Ask both and compare; give what both answered, if it was no intended difference."""
        theirs, ours = PAIR.ask(operation)
        for name, difference in ANSWERS.items():
            if difference.applies(operation, theirs, ours):
                hypothesis.event(name)
                if difference.mend is not None:
                    difference.mend(PAIR, operation, theirs, ours)
                return None
        shown = [(answer.status, mask(operation, answer.body)) for answer in (theirs, ours)]
        self.alike = shown[1] == shown[0]
        assert self.alike, f"DIFFERS {operation}\nMLflow: {shown[0]}\nours: {shown[1]}"
        return theirs

    def spoil_some(self, data: st.DataObject, operation: Operation) -> Operation:
        if data.draw(st.integers(0, 9)) == 9:
            return data.draw(ops.spoilt(operation))
        return operation

    def name_of_one(self, data: st.DataObject) -> str:
        """Pick a model that is there, mostly."""
        if not self.names or data.draw(st.integers(0, 19)) == 19:
            return data.draw(ops.hostile)
        return data.draw(st.sampled_from(self.names))

    def new_name(self, data: st.DataObject) -> str:
        if data.draw(st.integers(0, 19)) == 19:
            return data.draw(ops.no_names)
        return self.prefix + data.draw(st.sampled_from("abcdef") | ops.hostile)

    def _fits(self, name: str) -> bool:
        """Whether a name was never given up; one spelling of several is a law's to tell."""
        return name not in self.given_up and name == unicodedata.normalize("NFC", name)

    # Models.

    @rule(data=st.data())
    def create_model(self, data: st.DataObject) -> None:
        fields = {"name": self.new_name(data), "tags": data.draw(ops.tags)}
        if data.draw(st.booleans()):
            fields["description"] = data.draw(ops.texts)
        operation = self.spoil_some(data, Operation("POST", "registered-models/create", fields))
        if not self._fits(operation.text("name")):
            return
        answer = self.send(operation)
        if answer is not None and answer.taken:
            self.names.append(operation.text("name"))

    @rule(data=st.data())
    def rename_model(self, data: st.DataObject) -> None:
        fields = {"name": self.name_of_one(data), "new_name": self.new_name(data)}
        operation = self.spoil_some(data, Operation("POST", "registered-models/rename", fields))
        old, new = operation.text("name"), operation.text("new_name")
        # To its own name it changes nothing, but MLflow's times of every version.
        if not (self._fits(new) and is_a_name(new)) or new == old:
            return
        answer = self.send(operation)
        if answer is not None and answer.taken:
            self.give_up(old)
            self.names.append(new)
            self.touch(new)

    def give_up(self, name: str) -> None:
        self.names.remove(name)
        self.given_up.add(name)

    def touch(self, name: str) -> None:
        """Change each version: a rename moves their times in MLflow, and not in ours."""
        for number in range(1, self.most_versions + 1):
            fields = {"name": name, "version": str(number), "description": f"touched {name}"}
            PAIR.ask(Operation("PATCH", "model-versions/update", fields))

    @rule(data=st.data())
    def update_model(self, data: st.DataObject) -> None:
        fields = {"name": self.name_of_one(data), "description": data.draw(ops.texts)}
        self.send(self.spoil_some(data, Operation("PATCH", "registered-models/update", fields)))

    @precondition(lambda self: len(self.names) > 2)
    @rule(data=st.data())
    def delete_model(self, data: st.DataObject) -> None:
        fields = {"name": self.name_of_one(data)}
        operation = self.spoil_some(data, Operation("DELETE", "registered-models/delete", fields))
        answer = self.send(operation)
        if answer is not None and answer.taken:
            self.give_up(operation.text("name"))

    @rule(data=st.data())
    def get_model(self, data: st.DataObject) -> None:
        self.send(Operation("GET", "registered-models/get", {"name": self.name_of_one(data)}))

    @rule(data=st.data(), method=st.sampled_from(["GET", "POST"]))
    def get_latest(self, data: st.DataObject, method: str) -> None:
        asked = data.draw(st.lists(ops.stages, max_size=3))
        fields = {"name": self.name_of_one(data), "stages": asked}
        operation = Operation(method, "registered-models/get-latest-versions", fields)
        self.send(operation if method == "GET" else self.spoil_some(data, operation))

    # Versions.

    @rule(data=st.data())
    def create_version(self, data: st.DataObject) -> None:
        fields: Json = {"name": self.name_of_one(data), "source": data.draw(ops.sources)}
        for field, values in (
            ("run_id", st.sampled_from(["run1", "run2", ""]) | ops.hostile),
            ("run_link", ops.texts),
            ("description", ops.texts),
            ("tags", ops.tags),
        ):
            if data.draw(st.booleans()):
                fields[field] = data.draw(values)
        self._register(self.spoil_some(data, Operation("POST", "model-versions/create", fields)))

    def _register(self, operation: Operation) -> None:
        answer = self.send(operation)
        if answer is not None and answer.taken:
            number = int(answer.body["model_version"]["version"])
            self.most_versions = max(self.most_versions, number)

    @precondition(lambda self: self.names)
    @rule(data=st.data())
    def copy_version(self, data: st.DataObject) -> None:
        which = data.draw(
            st.sampled_from(["/1", "/2", "/9", "/0", "/latest", "/Production", "/staging", "/None"])
            | st.sampled_from(["@champion", "@nobody", "/Canary", "/x/y", "/", "@", ""])
        )
        fields = {
            "name": self.name_of_one(data),
            "source": f"models:/{data.draw(st.sampled_from(self.names))}{which}",
        }
        self._register(Operation("POST", "model-versions/create", fields))

    def version_of_one(self, data: st.DataObject) -> Json:
        return {"name": self.name_of_one(data), "version": data.draw(ops.numbers)}

    @rule(data=st.data())
    def update_version(self, data: st.DataObject) -> None:
        fields = self.version_of_one(data)
        if data.draw(st.booleans()):
            fields["description"] = data.draw(ops.texts)
        self.send(self.spoil_some(data, Operation("PATCH", "model-versions/update", fields)))

    @rule(data=st.data(), archives=st.booleans())
    def transition(self, data: st.DataObject, archives: bool) -> None:
        fields = {**self.version_of_one(data), "stage": data.draw(ops.stages)}
        spelling = data.draw(
            st.sampled_from(["archive_existing_versions", "archiveExistingVersions"])
        )
        fields[spelling] = archives
        operation = Operation("POST", "model-versions/transition-stage", fields)
        self.send(self.spoil_some(data, operation))

    @rule(data=st.data())
    def delete_version(self, data: st.DataObject) -> None:
        fields = self.version_of_one(data)
        self.send(self.spoil_some(data, Operation("DELETE", "model-versions/delete", fields)))

    @rule(data=st.data(), what=st.sampled_from(["get", "get-download-uri"]))
    def get_version(self, data: st.DataObject, what: str) -> None:
        self.send(Operation("GET", f"model-versions/{what}", self.version_of_one(data)))

    # Tags and aliases.

    @rule(data=st.data())
    def tag_model(self, data: st.DataObject) -> None:
        fields = {"name": self.name_of_one(data), "key": data.draw(ops.keys)}
        self._tag(data, "registered-models", fields)

    @rule(data=st.data())
    def tag_version(self, data: st.DataObject) -> None:
        fields = {**self.version_of_one(data), "key": data.draw(ops.keys)}
        self._tag(data, "model-versions", fields)

    def _tag(self, data: st.DataObject, path: str, fields: Json) -> None:
        if data.draw(st.integers(0, 2)) == 0:
            operation = Operation("DELETE", f"{path}/delete-tag", fields)
        else:
            fields["value"] = data.draw(ops.texts)
            operation = Operation("POST", f"{path}/set-tag", fields)
        self.send(self.spoil_some(data, operation))

    @rule(data=st.data())
    def set_alias(self, data: st.DataObject) -> None:
        fields = {**self.version_of_one(data), "alias": data.draw(ops.aliases)}
        self.send(self.spoil_some(data, Operation("POST", "registered-models/alias", fields)))

    @rule(data=st.data(), method=st.sampled_from(["GET", "DELETE"]))
    def use_alias(self, data: st.DataObject, method: str) -> None:
        fields = {"name": self.name_of_one(data), "alias": data.draw(ops.aliases)}
        self.send(Operation(method, "registered-models/alias", fields))

    # Searches.

    @rule(data=st.data(), path=st.sampled_from(["registered-models", "model-versions"]))
    def search(self, data: st.DataObject, path: str) -> None:
        fields: Json = {"filter": data.draw(ops.filters), "order_by": data.draw(ops.orders)}
        if data.draw(st.booleans()):
            fields["max_results"] = data.draw(ops.counts)
        if data.draw(st.integers(0, 19)) == 19:
            fields["page_token"] = data.draw(st.sampled_from(["x", "%%%", "=", "e30"]))
        self.send(Operation("GET", f"{path}/search", fields))

    # Nonsense.

    @rule(data=st.data())
    def send_nonsense(self, data: st.DataObject) -> None:
        method, path = data.draw(ops.methods_of_paths)
        values = st.sampled_from(["", "a", "1"]) if method == "GET" else ops.mistyped
        fields = data.draw(st.dictionaries(ops.fields, values, max_size=4))
        self.send(Operation(method, path, fields))

    def teardown(self) -> None:
        """Compare all there is, whoever asked for it before."""
        if not self.alike:
            return
        for name in self.names:
            self.send(Operation("GET", "registered-models/get", {"name": name}))
        for scope in ("", "tags.`mlflow.prompt.is_prompt` = 'true'"):
            for path in ("registered-models", "model-versions"):
                answer = self.send(Operation("GET", f"{path}/search", {"filter": scope}))
        found = answer.body.get("model_versions", ()) if answer is not None else ()
        for version in found:
            fields = {"name": version["name"], "version": version["version"]}
            self.send(Operation("GET", "model-versions/get-download-uri", fields))


TestSideBySide = SideBySide.TestCase
TestSideBySide.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    derandomize=not LONG,
    database=None,
    print_blob=True,
    # What differs is told by the request itself; making it smaller takes minutes.
    phases=set(Phase) if SHRINKS else {Phase.generate},
    report_multiple_bugs=SHRINKS,
    suppress_health_check=list(HealthCheck),
)
