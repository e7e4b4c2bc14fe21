"""Opens the files of a set behind a URL: within limits of time, and from that server alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from dsanet.errors import UserError, printable
from dsanet.limits import raise_limit
from pipelines.config import RemoteConfig
from pipelines.errors import LoaderError
from pipelines.read.thread_pool import StoppedError
from pipelines.read.transfer import BLOCK, StallFlag, blocks

HTTP = ("http", "https")


class Store:
    """The files of one split behind a URL, for every protocol that fsspec knows.

    http and https are read as one stream for each file: no ranges, no compression, and redirects
    as `config.redirects` says.

    Raises:
        LoaderError: without the package fsspec, or for an address that it cannot open.
    """

    def __init__(self, url: str, split: str, config: RemoteConfig) -> None:
        try:
            import fsspec.core
        except ImportError:
            raise LoaderError(
                f"{url}: needs the package fsspec; pip install -e '.[remote]'"
            ) from None
        self.url, self.address, self.config = url, f"{url}/{split}", config
        self._http = url.partition("://")[0] in HTTP
        options: dict[str, Any] = {}
        if self._http:
            options = {"get_client": _HttpClients(config).open, "skip_instance_cache": True}
        with self._one_line(self.address):
            self._files, self._path = fsspec.core.url_to_fs(self.address, **options)

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a file of the split for reading.

        Raises:
            LoaderError: for any exception of the store; those of most stores are not OSErrors.
        """
        # A size that is given saves a HEAD request; no ranges are asked for with blocks of size 0.
        options = {"block_size": 0, "size": 1} if self._http else {"block_size": BLOCK}
        with (
            self._one_line(f"{self.address}/{name}"),
            self._files.open(f"{self._path}/{name}", "rb", **options) as file,
        ):
            yield file

    def read(self, name: str, limit: int, flag: StallFlag) -> bytes:
        """The content of a file of at most `limit` bytes."""
        address = f"{self.address}/{name}"
        with self.open(name) as source:
            return b"".join(blocks(source, limit, flag, address, self.config.total))

    @contextlib.contextmanager
    def _one_line(self, address: str) -> Iterator[None]:
        try:
            yield
        except (UserError, StoppedError, MemoryError):
            raise
        except FileNotFoundError:
            raise LoaderError(f"{address}: no such file; check the URL") from None
        except ImportError as error:
            raise LoaderError(f"{address}: {error}; pip install the missing package") from None
        except TimeoutError as error:
            raise LoaderError(f"{address}: {self._describe_timeout(error)}") from None
        except Exception as error:
            raise_limit(error)  # of this machine, such as a full disk
            text = f"{type(error).__name__}: {printable(error, 300)}"
            raise LoaderError(
                f"{address}: cannot be fetched ({text}); check the URL, the network and the "
                "credentials"
            ) from None

    def _describe_timeout(self, error: TimeoutError) -> str:
        cause: BaseException = error.__cause__ or error  # fsspec wraps the one of aiohttp
        setting, seconds = "total", self.config.total
        if not self._http:
            return f"{type(error).__name__} {printable(error, 300)}; check the network"
        import aiohttp

        if isinstance(cause, aiohttp.ServerTimeoutError):
            setting, seconds = "idle", self.config.idle
        return f"no answer in {seconds:g} s (loader.remote.{setting}); check the server"


class _HttpClients:
    """Makes the sessions of aiohttp that fsspec uses."""

    def __init__(self, config: RemoteConfig) -> None:
        self.config = config

    async def open(self, **settings: Any) -> Any:
        """A session with the limits; settings: those of fsspec's own configuration."""
        import aiohttp

        trace = aiohttp.TraceConfig()
        trace.on_request_redirect.append(self._check_redirect)
        trace.on_request_end.append(_check_encoding)
        config = self.config
        limits = {
            "timeout": aiohttp.ClientTimeout(
                total=config.total, sock_connect=config.idle, sock_read=config.idle
            ),
            "auto_decompress": False,
            "headers": {**settings.get("headers", {}), "Accept-Encoding": "identity"},
            "trace_configs": [*settings.get("trace_configs", ()), trace],
        }
        return aiohttp.ClientSession(**settings | limits)

    async def _check_redirect(self, session: Any, context: Any, step: Any) -> None:
        if self.config.redirects == "any":
            return
        url = step.response.url
        location = step.response.headers.get("Location") or step.response.headers.get("URI", "")
        target = url.join(type(url)(location))
        upgrade = (url.scheme, target.scheme) == ("http", "https") and url.host == target.host
        if target.origin() != url.origin() and not (upgrade and target.is_default_port()):
            raise LoaderError(
                f"{url}: leads to another server, {printable(target.origin())}; if you trust that "
                "one, give its address, or --loader.remote.redirects any"
            )


async def _check_encoding(session: Any, context: Any, step: Any) -> None:
    encoding = step.response.headers.get("Content-Encoding", "").lower()
    if encoding not in ("", "identity") and step.response.ok:
        raise LoaderError(
            f"{step.url}: is sent with Content-Encoding {printable(encoding, 40)}; have the server "
            "send the files of the set as they are"
        )
