"""Asks a daemon's status site."""

from __future__ import annotations

import json
import socket
import ssl
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import cast
from urllib.parse import urlsplit

from pgtls.errors import PgTLSError
from pgtls.status.status_document import StatusDocument
from pgtls.text import printable

#: Where a status site is, if nobody says anything else.
DEFAULT_URL = "http://127.0.0.1:9187/"

#: Seconds for an answer.
TIMEOUT = 10.0

#: Bytes of an answer that are read.
_MOST = 64 << 20


class NoStatus(PgTLSError):
    """There is no status to be had; the text says why."""


class _UnixConnection(HTTPConnection):
    """HTTP over a Unix socket.

    :param path: the socket's.
    """

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self._path)


def status_document(url: str, root: str | None = None) -> StatusDocument:
    """Ask for the status.

    :param url: of the site: ``http://``, ``https://``, or ``unix:`` and a socket's path.
    :param root: a file of authorities that its certificate is verified by; None for the system's.
    :returns: the status.
    :raises NoStatus: it cannot be reached, or answers something else.
    """
    connection, path = _connection(url, root)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        body = answer.read(_MOST)
        if answer.status != 200:
            said = printable(body.decode("utf-8", "replace").strip())
            raise NoStatus(f"{url}: {answer.status} {answer.reason}: {said}")
        document = json.loads(body, parse_constant=lambda _: 0)
        if not isinstance(document, dict) or "open_sessions" not in document:
            raise NoStatus(f"{url}: this is no status of pgtls")
        return cast(StatusDocument, document)
    except (OSError, HTTPException, ValueError) as error:
        raise NoStatus(f"{url}: {error}: is it what the setting status says?") from error
    finally:
        connection.close()


def _connection(url: str, root: str | None) -> tuple[HTTPConnection, str]:
    """:raises NoStatus: it is no URL."""
    if url.startswith("unix:"):
        return _UnixConnection(url.removeprefix("unix:")), "/status.json"
    if "://" not in url:
        url = f"http://{url}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise NoStatus(f"{url}: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise NoStatus(f"{url}: write http://HOST:PORT/, https://HOST:PORT/ or unix:PATH")
    path = parts.path.removesuffix("status.json").rstrip("/") + "/status.json"
    if parts.scheme == "http":
        return HTTPConnection(host, port, timeout=TIMEOUT), path
    try:
        context = ssl.create_default_context(cafile=root)
    except OSError as error:
        raise NoStatus(f"{root}: {error.strerror or error}") from error
    return HTTPSConnection(host, port, timeout=TIMEOUT, context=context), path
