"""What can go wrong, in two kinds: the user's set-up (`ShardError`) and one video (`BadVideo`)."""

from __future__ import annotations

from dsanet.errors import UserError


class ShardError(UserError, RuntimeError):
    """A shard set cannot be built or read; the message names the thing, place and remedy."""


class ShardUsageError(ShardError):
    """The command or the settings make no sense."""

    exit_code = 2


class BadVideo(Exception):  # noqa: N818  (a verdict on an input, not a failure of the program)
    """One source cannot become a sample: `kind` is counted, `reason` is shown."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(f"{kind}: {reason}")
        self.kind = kind
        self.reason = reason
