"""The errors of the package: of the user's set-up (`ShardError`) and of one video (`BadVideo`)."""

from __future__ import annotations

from dsanet.errors import UserError


class ShardError(UserError, RuntimeError):
    """A shard set cannot be built or read."""


class ShardUsageError(ShardError):
    """A command or a setting that cannot work."""

    exit_code = 2


class BadVideo(Exception):  # noqa: N818  (a verdict on an input, not a failure of the program)
    """A source that cannot become a sample.

    kind: a word by which the progress and the report count such sources.
    reason: what is wrong, for the user. It is stored in the tar, so that changing such a text
        changes the bytes of a shard set; so do the `notes` of a sample.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(f"{kind}: {reason}")
        self.kind = kind
        self.reason = reason
