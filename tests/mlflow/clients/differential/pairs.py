"""One request to MLflow's server and to ours, and their answers brought into one form.

Times become the number of the request in which they were taken, so that they are compared by what
they say: what happened in one request, and what came before what.
"""

from __future__ import annotations

import json
import re
import time
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx

Json = dict[str, Any]

TIMES = {"creation_timestamp", "last_updated_timestamp"}
#: Lists whose order says nothing, and what tells their items apart.
UNORDERED = {"tags": "key", "latest_versions": "current_stage"}
BASE = "/api/2.0/mlflow/"


@dataclass(frozen=True)
class Operation:
    """A request: to which path, and with which fields, as a query where it is a GET."""

    method: str
    path: str
    fields: Any = field(default_factory=dict)

    @property
    def reads(self) -> bool:
        """Whether it changes nothing."""
        return self.method == "GET" or self.path.endswith("get-latest-versions")

    def text(self, name: str) -> str:
        """Give a field that is a text, else nothing."""
        value = self.fields.get(name) if isinstance(self.fields, dict) else None
        return value if isinstance(value, str) else ""


@dataclass(frozen=True)
class Answer:
    """What came back, in the one form."""

    status: int
    body: Json

    @property
    def taken(self) -> bool:
        """Whether the request was carried out."""
        return self.status == httpx.codes.OK

    @property
    def code(self) -> str:
        """Give a refusal's code."""
        return str(self.body.get("error_code", ""))


class Side:
    """One of the two servers, and when each request to it began."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=60)
        self.began: list[int] = []

    def ask(self, operation: Operation | None) -> Answer:
        """Send a request, in a millisecond that no other one shares; none counts as one too."""
        self.began.append(_next_millisecond())
        if operation is None:
            return Answer(200, {})
        url = BASE + operation.path
        if operation.method == "GET":
            # Lone surrogates become bytes that are no UTF-8.
            query = urlencode(operation.fields, doseq=True, errors="surrogatepass")
            answer = self.http.get(f"{url}?{query}")
        else:
            # Escaped, so that lone surrogates can be sent, which have no bytes in UTF-8.
            content = json.dumps(operation.fields)
            headers = {"content-type": "application/json"}
            answer = self.http.request(operation.method, url, content=content, headers=headers)
        return Answer(answer.status_code, self._even(_parsed(answer)))

    def _even(self, value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            even = {name: self._even(inner, name) for name, inner in value.items()}
            # MLflow shows some texts that are empty and leaves others out; clients see no
            # difference. What it says of its own errors' classes no client reads.
            return {
                name: inner
                for name, inner in even.items()
                if inner not in ("", []) and name not in {"sqlstate", "error_class"}
            }
        if isinstance(value, list):
            items = [self._even(item) for item in value]
            if key == "aliases":
                return sorted(items, key=str)
            if key in UNORDERED:
                return sorted(items, key=lambda item: str(item.get(UNORDERED[key])))
            return items
        if key in TIMES:
            return bisect_right(self.began, value) - 1
        if key == "next_page_token":
            return "there is more"
        if key == "message" and "alid keys are" in value:
            # MLflow names the members of sets in whatever order they have just now.
            return re.sub(r"\{([^{}]*)\}", lambda m: ", ".join(sorted(m[1].split(", "))), value)
        return value


def _parsed(answer: httpx.Response) -> Any:
    try:
        found = answer.json()
    except ValueError:
        return {"unreadable": answer.text[:200]}
    return found if isinstance(found, dict) else {"unreadable": found}


def _next_millisecond() -> int:
    last = time.time_ns() // 1_000_000
    while (now := time.time_ns() // 1_000_000) == last:
        time.sleep(0.0002)
    return now


class Pair:
    """Both servers, asked alike."""

    def __init__(self, theirs: str, ours: str) -> None:
        self.theirs = Side(theirs)
        self.ours = Side(ours)

    def ask(self, operation: Operation) -> tuple[Answer, Answer]:
        """Ask both; give theirs and ours."""
        return self.theirs.ask(operation), self.ours.ask(operation)

    def mend(self, theirs: Operation | None, ours: Operation | None) -> Answer:
        """Ask each for what makes them alike again after a difference; give what ours says."""
        for side, operation in ((self.theirs, theirs), (self.ours, ours)):
            answer = side.ask(operation)
            assert answer.taken, (operation, answer)
        return answer

    def empty(self) -> None:
        """Delete every model and prompt of both, and forget which request was when."""
        for side in (self.theirs, self.ours):
            for scope in ("", "tags.`mlflow.prompt.is_prompt` = 'true'"):
                while found := self._some(side, scope):
                    for name in found:
                        gone = side.ask(
                            Operation("DELETE", "registered-models/delete", {"name": name})
                        )
                        assert gone.taken, (name, gone)
            side.began.clear()

    def _some(self, side: Side, scope: str) -> list[str]:
        query = {"filter": scope, "max_results": 1000}
        page = side.ask(Operation("GET", "registered-models/search", query))
        return [model["name"] for model in page.body.get("registered_models", ())]
