"""Where a version comes from, as options: run, code, datasets, parent versions."""

from collections.abc import Sequence
from typing import Annotated

import typer

from stagewire import pb
from stagewire.cli.arguments import reference, refuse

_PANEL = "Lineage"

RunId = Annotated[
    str,
    typer.Option("--run-id", metavar="ID", help="The training run.", rich_help_panel=_PANEL),
]
RunLink = Annotated[
    str,
    typer.Option("--run-link", metavar="URL", help="The run's page.", rich_help_panel=_PANEL),
]
Experiment = Annotated[
    str,
    typer.Option(
        "--experiment", metavar="NAME", help="The run's experiment.", rich_help_panel=_PANEL
    ),
]
GitCommit = Annotated[
    str,
    typer.Option(
        "--git-commit",
        metavar="HASH",
        help="Commit of the training code.",
        rich_help_panel=_PANEL,
    ),
]
GitRepository = Annotated[
    str,
    typer.Option("--git-repository", metavar="URL", help="Its repository.", rich_help_panel=_PANEL),
]
TrainingData = Annotated[
    list[str] | None,
    typer.Option(
        "--dataset",
        metavar="NAME[=DIGEST]",
        help="What it was trained on; may be repeated.",
        rich_help_panel=_PANEL,
    ),
]
EvaluationData = Annotated[
    list[str] | None,
    typer.Option(
        "--evaluation-dataset",
        metavar="NAME[=DIGEST]",
        help="What it was measured on; may be repeated.",
        rich_help_panel=_PANEL,
    ),
]
Parents = Annotated[
    list[str] | None,
    typer.Option(
        "--parent",
        metavar="MODEL/VERSION[:HOW]",
        help="What it was made from, e.g. churn/3 or churn/3:fine-tuned; may be repeated.",
        rich_help_panel=_PANEL,
    ),
]


def datasets(texts: Sequence[str] | None, use: "pb.DatasetUse.ValueType") -> list[pb.Dataset]:
    """Parse NAME or NAME=DIGEST."""
    split = (text.partition("=") for text in texts or ())
    return [pb.Dataset(name=name, digest=digest, use=use) for name, _, digest in split]


def parent(text: str) -> pb.ParentVersion:
    """Parse MODEL/VERSION or MODEL/VERSION:HOW; refuses what is neither."""
    named, _, how = text.partition(":")
    model, version = reference("--parent", named)
    derivation = f"DERIVATION_{how.upper().replace('-', '_')}" if how else "DERIVATION_UNSPECIFIED"
    known = list(pb.Derivation.keys())
    if derivation not in known:
        choices = ", ".join(name.removeprefix("DERIVATION_").lower() for name in known[1:])
        refuse("--parent", f"{how!r} is none of {choices}")
    return pb.ParentVersion(
        model=model, version=version, derivation=pb.Derivation.Value(derivation)
    )
