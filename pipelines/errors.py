"""The room's one exception for what a user can put right."""


class LoaderError(RuntimeError):
    """Something a user can put right: the message names the thing, the place and the remedy."""

    exit_code = 1


class LoaderUsageError(LoaderError):
    """A setting that cannot work, known before any video is read."""

    exit_code = 2
