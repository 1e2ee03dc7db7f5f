"""Where each route is found: whole paths by one look-up, those with a name in them by pattern."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.routing import compile_path

from stagewire.gateway import downloads
from stagewire.mlflow.routes import ROUTES, WEB, Route

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping


#: MLflow's API, and what its web pages fetch of files.
SERVED = (*ROUTES, Route("GET", "/model-versions/get-artifact", downloads.artifact, WEB))


class Found(NamedTuple):
    """A path of ours: what it is called, its routes by method, and what is named in it."""

    template: str
    methods: Mapping[str, Route]
    params: Mapping[str, Any]


class Paths:
    """Every path of the gateway, below each of its bases."""

    def __init__(self) -> None:
        """Lay out the table of contents."""
        methods: dict[str, dict[str, Route]] = {}
        for route in SERVED:
            for base in route.bases:
                methods.setdefault(base + route.path, {})[route.method] = route
        self._whole = {
            path: Found(path, found, {}) for path, found in methods.items() if "{" not in path
        }
        self._patterns: list[tuple[re.Pattern[str], Found]] = [
            (compile_path(path)[0], Found(path, found, {}))
            for path, found in methods.items()
            if "{" in path
        ]

    def find(self, path: str) -> Found | None:
        """Find what answers a path, if it is the gateway's."""
        found = self._whole.get(path)
        if found is not None:
            return found
        for pattern, routes in self._patterns:
            match = pattern.fullmatch(path)
            if match:
                return routes._replace(params=match.groupdict())
        return None
