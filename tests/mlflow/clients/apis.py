"""MLflow's API in short, for a server of ours and for MLflow's own."""

from __future__ import annotations

from typing import Any

import httpx

from tests.gateway import apis
from tests.gateway.apis import SEE_DOCS, Json, Refusal

__all__ = ["SEE_DOCS", "Api", "Json", "Refusal"]


class Api(apis.Api):
    """Requests to one server; a refusal may say more than code and text, as MLflow's do."""

    def refused(self, method: str, path: str, given: Json) -> Refusal:
        """Send what must be refused: as a query where it is a GET, else as a body."""
        sent: Json = {"params": given} if method == "GET" else {"json": given}
        return refusal(self.send(method, path, **sent))


def refusal(response: httpx.Response) -> Refusal:
    """Give a refusal's status, code and text."""
    body: dict[str, Any] = response.json()
    return response.status_code, body["error_code"], body["message"]
