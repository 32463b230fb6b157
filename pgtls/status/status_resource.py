"""What the status site answers, path by path."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from ipaddress import ip_address

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector, CollectorRegistry
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from pgtls.status.daemon_metrics import daemon_families
from pgtls.status.status_document import StatusDocument

_log = Logger(namespace="pgtls.status")

#: In every answer: nothing is kept, nothing comes from elsewhere, no other page embeds or reads it.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Server": "pgtls",
}

TEXT = "text/plain; charset=utf-8"
JSON = "application/json; charset=utf-8"
HTML = "text/html; charset=utf-8"
CSS = "text/css; charset=utf-8"
SCRIPT = "text/javascript; charset=utf-8"
SVG = "image/svg+xml"

#: Paths that say nothing about anybody: they may be asked for by any name, by load balancers that
#: send their own.
_FOR_ANY_HOST = ("/healthz", "/readyz")

_REBINDING = (
    "this name is not one of the status site's: a page from elsewhere could read it under a name "
    "of its own (DNS rebinding). Use localhost or the IP address; a reverse proxy has to send "
    '"Host: localhost".\n'
)


class Answer:
    """An answer.

    :param body: what is sent.
    :param content_type: what it is.
    :param status: HTTP's status code.
    """

    def __init__(self, body: str | bytes, content_type: str = TEXT, status: int = 200) -> None:
        self.body = body if isinstance(body, bytes) else body.encode("utf-8", "backslashreplace")
        self.content_type = content_type
        self.status = status


Answerer = Callable[[], Answer | Deferred[Answer]]


class StatusResource(Resource):
    """All paths of the site.

    :param answerers: what answers each path.
    :param any_host: whether any name may be asked for: in TLS, where the name is certified, and
        over Unix sockets.
    """

    isLeaf = True

    def __init__(self, answerers: Mapping[str, Answerer], *, any_host: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._answerers = answerers
        self._any_host = any_host

    def render(self, request: Request) -> bytes | int:
        """Answer a request.

        :param request: Twisted's.
        :returns: the answer, or that it comes later.
        """
        answer = self._answer(request)
        if isinstance(answer, Answer):
            return _sent(request, answer)
        waiting = _Waiting(request)
        request.notifyFinish().addErrback(waiting.gone, answer)
        answer.addErrback(_failed).addCallback(waiting.send)
        return NOT_DONE_YET

    def _answer(self, request: Request) -> Answer | Deferred[Answer]:
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader("Allow", "GET, HEAD")
            return Answer("only GET and HEAD\n", status=405)
        path = request.path.decode("ascii", "replace")
        answerer = self._answerers.get(path)
        if answerer is None:
            return Answer(f"there is {', '.join(sorted(self._answerers))}\n", status=404)
        if path not in _FOR_ANY_HOST and not self._any_host and not is_own_name(request):
            return Answer(_REBINDING, status=421)
        return answerer()


def is_own_name(request: Request) -> bool:
    """Whether a request asks for a name that only this machine can have.

    :param request: Twisted's.
    :returns: True for ``localhost``, an IP address, and no name at all, as browsers never send it.
    """
    given = request.getHeader("host")
    if not given:
        return True
    host = given.lower()
    host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if host.rstrip(".") == "localhost" or host.endswith(".localhost"):
        return True
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _sent(request: Request, answer: Answer) -> bytes:
    request.setResponseCode(answer.status, HTTPStatus(answer.status).phrase.encode())
    for name, value in HEADERS.items():
        request.setHeader(name, value)
    request.setHeader("Content-Type", answer.content_type)
    request.setHeader("Content-Length", str(len(answer.body)))
    return b"" if request.method == b"HEAD" else answer.body


class _Waiting:
    """A request whose answer comes later, if it is still there then."""

    def __init__(self, request: Request) -> None:
        self._request: Request | None = request

    def gone(self, _: Failure, answer: Deferred[Answer]) -> None:
        self._request = None
        answer.cancel()

    def send(self, answer: Answer | None) -> None:
        if answer is not None and self._request is not None:
            self._request.write(_sent(self._request, answer))
            self._request.finish()


def _failed(failure: Failure) -> Answer | None:
    if failure.check(CancelledError):
        return None
    _log.failure("the status cannot be shown", failure)
    return Answer("internal error; the daemon's log has it\n", status=500)


class _Families(Collector):
    """What has been collected already."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> list[Family]:
        """All of it."""
        return self._families


def metrics_answer(document: StatusDocument, counted: list[Family]) -> Answer:
    """``/metrics``.

    :param document: the status.
    :param counted: what has been counted.
    :returns: the answer.
    """
    registry = CollectorRegistry()
    registry.register(_Families([*counted, *daemon_families(document)]))
    return Answer(generate_latest(registry), CONTENT_TYPE_LATEST)


def json_answer(document: StatusDocument) -> Answer:
    """``/status.json``.

    :param document: the status.
    :returns: the answer.
    """
    return Answer(json.dumps(document) + "\n", JSON)


def ready_answer(problems: list[str]) -> Answer:
    """``/readyz``.

    :param problems: why not, a sentence each.
    :returns: 200 where there is none, else 503.
    """
    if problems:
        return Answer("".join(f"{problem}\n" for problem in problems), status=503)
    return Answer("ready\n")
