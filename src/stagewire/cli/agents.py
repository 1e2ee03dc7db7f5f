"""`stagewire agent`: keep a target running what a stage says."""

import typer

from stagewire.cli.sessions import Session, command

app = typer.Typer()


@command(app, "agent", examples=["stagewire agent --target eu-west/prod"])
def agent(session: Session) -> None:
    """Keep a target running what a stage says."""
