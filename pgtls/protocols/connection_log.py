"""What the log says of a client's connection: who it is, over which TLS, with which certificate."""

from __future__ import annotations

from time import time

from twisted.logger import Logger, LogLevel

from pgtls.text import log_text
from pgtls.tls.tls_info import NegotiatedTLS
from pgtls.wire.messages import StartupMessage


def log_line(log: Logger, line: str, fields: dict[str, object]) -> None:
    """Log a line with its fields, which become the event.

    As ``log.info("{line}", line=line, **fields)``, which first sorts all levels there are. With
    one field in the format, since each more costs 10 us at every connection.
    """
    fields["line"] = line
    fields["log_format"] = "{line}"
    fields["log_level"] = LogLevel.info
    fields["log_logger"] = log
    fields["log_namespace"] = log.namespace
    fields["log_source"] = log.source
    fields["log_time"] = time()
    log.observer(fields)


def who(startup: StartupMessage) -> str:
    """The role and the database that a client asks for, as its own words, escaped and cut."""
    return f"user={_text(startup.user)} database={_text(startup.database)}"


def tls_text(tls: NegotiatedTLS | None) -> str:
    """The TLS, and the certificate if one was used."""
    if tls is None:
        return "SSL=off"
    text = f"SSL={tls.version} cipher={tls.cipher} group={tls.group}"
    certificate = tls.certificate
    if certificate is None:
        return text
    return (
        f'{text} client_dn="{certificate.subject_line}" '
        f'client_serial={certificate.serial_text} issuer_dn="{certificate.issuer_line}"'
    )


def fields(startup: StartupMessage | None, tls: NegotiatedTLS | None) -> dict[str, object]:
    """The same for who reads logs by program: all names always, None where there is nothing."""
    certificate = tls.certificate if tls is not None else None
    return {
        "user": _text(startup.user) if startup is not None else None,
        "database": _text(startup.database) if startup is not None else None,
        "tls_version": tls.version if tls is not None else None,
        "tls_cipher": tls.cipher if tls is not None else None,
        "tls_group": tls.group if tls is not None else None,
        "client_dn": certificate.subject_line if certificate is not None else None,
        "client_serial": certificate.serial_text if certificate is not None else None,
        "issuer_dn": certificate.issuer_line if certificate is not None else None,
    }


def _text(octets: bytes) -> str:
    return log_text(octets)
