"""What a subcommand raises. Without other imports: some subcommands start without the runtime."""

__all__ = ["CommandError", "UsageError"]


class CommandError(Exception):
    """The command failed; the message is one sentence for the user."""


class UsageError(CommandError):
    """The command line is wrong."""
