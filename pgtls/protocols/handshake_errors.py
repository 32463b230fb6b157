"""Text from a peer or a library, made fit for one line of a log."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.error import ConnectionClosed
from twisted.python.failure import Failure

#: Characters of a peer's text that a log line shows.
LOG_LIMIT = 200


def printable(text: str) -> str:
    """``text`` with everything escaped that could break a line or a terminal, cut at LOG_LIMIT."""
    if len(text) <= LOG_LIMIT and text.isascii() and text.isprintable() and "\\" not in text:
        return text  # as nearly all are
    shown = text if len(text) <= LOG_LIMIT else text[:LOG_LIMIT] + "..."
    return shown.encode("unicode_escape").decode("ascii")


def is_tls_error(reason: Failure) -> bool:
    """Whether a connection has ended because TLS has failed: a record that is broken, an alert.

    :param reason: what ``connectionLost`` gets.
    :returns: False where TCP has ended or the peer has closed.
    """
    return isinstance(reason.value, SSL.Error) and not isinstance(reason.value, SSL.SysCallError)


def tls_reason(reason: Failure) -> str:
    """Why a handshake failed, in OpenSSL's words, as libpq and PostgreSQL show them."""
    error = reason.value
    if isinstance(error, SSL.SysCallError):
        return "SSL SYSCALL error: EOF detected"
    if isinstance(error, SSL.Error):
        queue = error.args[0] if error.args else []
        words = [entry[2] for entry in queue if entry[2]]  # the first is the cause
        return f"SSL error: {printable(words[0])}" if words else "SSL error: unexpected eof"
    if isinstance(error, ConnectionClosed):
        return "SSL SYSCALL error: EOF detected"
    return printable(str(error))
