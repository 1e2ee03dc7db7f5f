"""MLflow's own store on SQLite, asked line by line: JSON comes in, JSON goes out.

Runs in an interpreter that has MLflow, and so imports nothing of ours.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from typing import Any

from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry import sqlalchemy_store

# Each write at a time of its own, so that no order is left to chance.
_TICKS = itertools.count(1_700_000_000_000, 1000)
sqlalchemy_store.get_current_time_millis = lambda: next(_TICKS)


def main(folder: str) -> None:
    """Answer until there is nothing more to read."""
    store = sqlalchemy_store.SqlAlchemyStore(f"sqlite:///{folder}/mlflow.db")
    for line in sys.stdin:
        asked = json.loads(line)
        operation = asked.pop("do")
        try:
            answer = {"found": _OPERATIONS[operation](store, **asked)}
        except MlflowException as error:
            answer = {"code": error.error_code, "refused": error.message}
        except Exception as error:  # noqa: BLE001  # MLflow's 500, whatever it was
            answer = {"code": "INTERNAL_ERROR", "refused": repr(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _model(store: Any, name: str, tags: dict[str, str]) -> None:
    store.create_registered_model(name, [RegisteredModelTag(*tag) for tag in tags.items()])


def _version(store: Any, name: str, source: str, run_id: str, tags: dict[str, str]) -> None:
    store.create_model_version(
        name, source, run_id, [ModelVersionTag(*tag) for tag in tags.items()]
    )


def _describe(store: Any, name: str, number: int) -> None:
    store.update_model_version(name, number, "anew")


def _models(store: Any, text: str, order_by: list[str]) -> list[Any]:
    found = store.search_registered_models(text, 1000, order_by)
    return [[model.name] for model in found]


def _versions(store: Any, text: str, order_by: list[str]) -> list[Any]:
    found = store.search_model_versions(text, 10_000, order_by)
    return [[version.name, int(version.version)] for version in found]


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "model": _model,
    "version": _version,
    "describe": _describe,
    "delete": lambda store, name, number: store.delete_model_version(name, number),
    "models": _models,
    "versions": _versions,
}

if __name__ == "__main__":
    main(sys.argv[1])
