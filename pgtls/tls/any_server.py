"""TLS that accepts whatever a server offers and verifies nothing, to find out what it offers."""

from __future__ import annotations

from OpenSSL.SSL import Connection

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.tls.client_context import ClientTLS, Roots
from pgtls.tls.der import SEQUENCE, first
from pgtls.tls.distinguished_name import UNREADABLE, DistinguishedName

#: All suites that OpenSSL still has, those included that are too weak for anything else.
EVERY_CIPHER = "ALL:!aNULL:!eNULL:@SECLEVEL=0"
#: The suites of TLS 1.2 and before whose key exchange is not ephemeral.
NOT_FORWARD_SECRET = "kRSA:!aNULL:!eNULL:@SECLEVEL=0"


class AnyServerTLS(ClientTLS):
    """The TLS of a survey: nothing is verified, so no password may be sent over it.

    Versions, SNI and client certificate are those of the connection string.

    :param conninfo: the connection string.
    :param ciphers: an OpenSSL cipher list for TLS 1.2 and before.
    :raises ConfigurationError: the client certificate cannot be used.
    """

    def __init__(self, conninfo: ConnInfo, ciphers: str = EVERY_CIPHER) -> None:
        super().__init__(conninfo)
        self._context.set_cipher_list(ciphers.encode())
        self._context.set_info_callback(self._note_request)

    def _trust(self, given: Roots | None) -> bool:
        return False


def authorities(connection: Connection) -> list[str]:
    """The authorities whose client certificates a server asks for.

    :param connection: a connection to it, after the handshake.
    :returns: their distinguished names in the order of RFC 2253.
    """
    return [_name(authority.der()) for authority in connection.get_client_ca_list()]


def _name(der: bytes) -> str:
    try:
        return DistinguishedName.parse(first(der, SEQUENCE).content).legible()
    except ValueError:
        return UNREADABLE
