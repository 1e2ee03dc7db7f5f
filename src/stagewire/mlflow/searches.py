"""Searches: lists as long as MLflow's clients ask for, joined from pages and never held whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stagewire import pb
from stagewire.mlflow import answers, errors, filters
from stagewire.mlflow.calls import Call, takes
from stagewire.mlflow.errors import saying
from stagewire.mlflow.shapes import COUNT, TEXT, TEXTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from stagewire.mlflow.shapes import Json

MODELS_DEFAULT = 100
MODELS_MOST = 1000
VERSIONS_MOST = 200_000
#: What one read of the registry gives at most.
_PAGE_SIZE = 1000

_BAD_TOKEN = {
    "INVALID_PAGE_TOKEN": errors.invalid("Invalid page token, could not base64-decode"),
}


@dataclass(slots=True)
class Listing:
    """A list under way: each `page` reads on, until it has `ended`; `token` leads on from there."""

    name: str
    read: Callable[[str, int], tuple[list[Json], str]]
    left: int
    token: str = ""
    ended: bool = False

    def page(self) -> list[Json]:
        """Read the next rows."""
        rows, self.token = self.read(self.token, min(self.left, _PAGE_SIZE))
        self.left -= len(rows)
        self.ended = not self.token or self.left <= 0
        return rows

    def whole(self) -> Json:
        """Read to the end, and give the answer in one piece; an empty list is left out."""
        rows: list[Json] = []
        while not self.ended:
            rows += self.page()
        answer: Json = {self.name: rows} if rows else {}
        return {**answer, "next_page_token": self.token} if rows and self.token else answer


@takes(
    filter=TEXT,
    max_results=COUNT.up_to(MODELS_MOST, default=MODELS_DEFAULT),
    order_by=TEXTS,
    page_token=TEXT,
)
def search_models(call: Call) -> Listing:
    """Search for models."""
    call, most = call.unhurried, _positive(call["max_results"])
    query = filters.models_query(call["filter"], call["order_by"])

    def read(token: str, size: int) -> tuple[list[Json], str]:
        with saying({**_BAD_TOKEN, **query.refusals}):
            found = call.ask(
                call.registry.ListModels,
                pb.ListModelsRequest(
                    filter=query.filter,
                    order_by=query.order_by,
                    page_size=size,
                    page_token=token,
                    include_holdings=True,
                ),
            )
        rows = [
            answers.registered_model(
                call,
                model,
                aliases=holdings.aliases,
                latest=holdings.latest_versions,
                activity_time=holdings.activity_time,
            )
            for model, holdings in zip(found.models, found.holdings, strict=True)
        ]
        return rows, found.next_page_token

    return Listing("registered_models", read, most, call["page_token"])


@takes(max_results=COUNT.up_to(MODELS_MOST, default=MODELS_DEFAULT), page_token=TEXT)
def list_models(call: Call) -> Listing:
    """List models, as clients before MLflow 2 do."""
    return search_models.work(  # type: ignore[return-value]  # a search gives a listing
        call.with_fields({**call.fields, "filter": "", "order_by": ()})
    )


@takes(
    filter=TEXT,
    max_results=COUNT.up_to(VERSIONS_MOST, default=VERSIONS_MOST),
    order_by=TEXTS,
    page_token=TEXT,
)
def search_versions(call: Call) -> Listing:
    """Search for versions of all models."""
    call, most = call.unhurried, _positive(call["max_results"])
    query = filters.versions_query(call["filter"], call["order_by"])

    def read(token: str, size: int) -> tuple[list[Json], str]:
        with saying({**_BAD_TOKEN, **query.refusals}):
            found = call.ask(
                call.registry.ListModelVersions,
                pb.ListModelVersionsRequest(
                    filter=query.filter, order_by=query.order_by, page_size=size, page_token=token
                ),
            )
        rows = [answers.model_version(call, version, listed=True) for version in found.versions]
        return rows, found.next_page_token

    return Listing("model_versions", read, most, call["page_token"])


def _positive(most: int) -> int:
    if most < 1:
        raise errors.invalid(
            f"Invalid value for max_results. It must be a positive integer, but got {most}"
        )
    return most
