"""Groups with a command of their own: what names no subcommand is meant for it."""

from typing import Any

from typer.core import TyperGroup

#: The command that is meant when none is named.
DEFAULT = "file"
_HELP = {"--help", "-h"}


class DefaultGroup(TyperGroup):
    """`stagewire export -o FILE` beside `stagewire export mlflow`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default's name before what names none."""
        if not args or (args[0] not in self.commands and args[0] not in _HELP):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)
