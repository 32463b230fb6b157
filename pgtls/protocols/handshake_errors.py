"""Why a TLS handshake failed, in one line."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.error import ConnectionClosed
from twisted.python.failure import Failure

from pgtls.text import log_text


def is_tls_error(reason: Failure) -> bool:
    """Whether a connection has ended because TLS has failed: a record that is broken, an alert.

    :param reason: what ``connectionLost`` gets.
    :returns: False where TCP has ended or the peer has closed.
    """
    return isinstance(reason.value, SSL.Error) and not isinstance(reason.value, SSL.SysCallError)


def tls_reason(reason: Failure) -> str:
    """Describe why a handshake or a connection failed, in OpenSSL's words, as libpq and PostgreSQL
    show them.

    :param reason: what ``connectionLost`` gets.
    :returns: one line, escaped and cut.
    """
    error = reason.value
    if isinstance(error, SSL.SysCallError):
        return "SSL SYSCALL error: EOF detected"
    if isinstance(error, SSL.Error):
        queue = error.args[0] if error.args else []
        words = [entry[2] for entry in queue if entry[2]]  # the first is the cause
        return f"SSL error: {log_text(words[0])}" if words else "SSL error: unexpected eof"
    if isinstance(error, ConnectionClosed):
        return "SSL SYSCALL error: EOF detected"
    return log_text(str(error))
