"""Which release of MLflow's client this is, and what its refusals look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlflow
import pytest
from mlflow.exceptions import MlflowException

if TYPE_CHECKING:
    from collections.abc import Callable

RELEASE = tuple(int(part) for part in mlflow.__version__.split(".")[:2])

#: Code and text, as a client sees them.
Refused = tuple[str, str]


def refused(call: Callable[..., object], *given: object, **named: object) -> Refused:
    """Make a call that must be refused; give the code and the text that MLflow's users get."""
    with pytest.raises(MlflowException) as caught:
        call(*given, **named)
    code = str(caught.value.error_code)
    return code, str(caught.value).removeprefix(f"{code}: ")


def absent(text: str) -> Refused:
    """Say how something that is not there is refused."""
    return "RESOURCE_DOES_NOT_EXIST", text


def exists(text: str) -> Refused:
    """Say how something that is there already is refused."""
    return "RESOURCE_ALREADY_EXISTS", text


def invalid(text: str) -> Refused:
    """Say how a mistake of the caller's is refused."""
    return "INVALID_PARAMETER_VALUE", text
