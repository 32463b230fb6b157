"""Why a TLS handshake failed, in one line."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.error import ConnectionClosed
from twisted.python.failure import Failure

from pgtls.text import log_text

#: OpenSSL's word for a handshake that :mod:`pgtls.tls.server_name` has ended; nothing else of ours
#: ends one so.
_CALLBACK_FAILED = "callback failed"


def is_tls_error(reason: Failure) -> bool:
    """Whether a connection has ended because TLS has failed: a record that is broken, an alert.

    :param reason: what ``connectionLost`` gets.
    :returns: False where TCP has ended or the peer has closed.
    """
    return isinstance(reason.value, SSL.Error) and not isinstance(reason.value, SSL.SysCallError)


def accept_failure(reason: Failure, connection: SSL.Connection) -> str:
    """Why a client's handshake failed, in PostgreSQL's words, and ours where hosts_file is why.

    :param reason: what ``connectionLost`` got.
    :param connection: the server's end.
    :returns: the text.
    """
    text = f"could not accept SSL connection: {tls_reason(reason)}"
    if not text.endswith(_CALLBACK_FAILED):
        return text
    name = connection.get_servername()
    if name is None:
        return f"{text}: hosts_file has nothing for a client that names no host"
    return f'{text}: hosts_file has no host "{log_text(name)}"'


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
