"""Where each route is found: whole paths by one look-up, those with a name in them by pattern."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.routing import compile_path

from stagewire.gateway.routes import ROUTES

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping

    from stagewire.gateway.routes import Route


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
        for route in ROUTES:
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
