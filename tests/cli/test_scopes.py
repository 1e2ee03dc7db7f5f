"""Scopes as they are typed and shown."""

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from stagewire import pb
from stagewire.cli import scopes

SPACES = st.sampled_from(["default", "risk", "*"])
MODELS = st.text(
    st.characters(exclude_characters="/:", exclude_categories=["Cs", "Cc"]), min_size=1
)
STAGES = st.text(
    st.characters(exclude_characters="/:@", exclude_categories=["Cs", "Cc"]), min_size=1
)
ALIASES = st.from_regex(r"[\w.-]+", fullmatch=True)
ROLES = st.sampled_from([value for value in pb.Role.values() if value])


@st.composite
def any_scope(draw: st.DrawFn) -> pb.Scope:
    scope = pb.Scope(role=draw(ROLES), namespace=draw(SPACES), model=draw(MODELS))
    match draw(st.sampled_from(["whole", "stage", "alias"])):
        case "stage":
            scope.stage = draw(STAGES)
        case "alias":
            scope.alias = draw(ALIASES)
    return scope


@given(any_scope())
def test_what_is_shown_can_be_typed_again(scope: pb.Scope) -> None:
    again = scopes.parse("--scope", scopes.describe(scope), namespace="other")

    if scope.model == "*" and not scope.stage and not scope.alias:
        scope.model = ""
    assert again == scope


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("viewer", pb.Scope(role=pb.ROLE_VIEWER, namespace="risk")),
        ("admin@*", pb.Scope(role=pb.ROLE_ADMIN, namespace="*")),
        ("registrar@ml/churn-*", pb.Scope(role=pb.ROLE_REGISTRAR, namespace="ml", model="churn-*")),
        (
            "approver@ml/*/Production",
            pb.Scope(role=pb.ROLE_APPROVER, namespace="ml", model="*", stage="Production"),
        ),
        (
            "editor@ml/me@home@champion",
            pb.Scope(role=pb.ROLE_EDITOR, namespace="ml", model="me@home", alias="champion"),
        ),
        ("viewer@ml/me@home/", pb.Scope(role=pb.ROLE_VIEWER, namespace="ml", model="me@home")),
    ],
)
def test_a_scope_says_what_it_reads_like(text: str, meant: pb.Scope) -> None:
    assert scopes.parse("--scope", text, namespace="risk") == meant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "owner",
        "Viewer",
        "viewer@",
        "viewer@ml/",
        "viewer@ml//Staging",
        "editor@ml/a/b/c",
        "editor@ml/churn@",
    ],
)
def test_what_is_no_scope_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        scopes.parse("--scope", text, namespace="risk")
