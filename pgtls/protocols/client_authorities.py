"""Whether a listener can verify clients' certificates: ``ssl_ca_file``, or the CAs of hosts_file.

Source: ``ClientAuthentication`` in ``src/backend/libpq/auth.c``, where it asks
``secure_loaded_verify_locations``.
"""

from __future__ import annotations

from twisted.internet.interfaces import IOpenSSLServerConnectionCreator

from pgtls.protocols.server_settings import ListenerSettings
from pgtls.protocols.server_tls import ServerTLS, names_hosts
from pgtls.protocols.stages import Client, Refuse
from pgtls.wire.messages import ErrorResponse

#: What a client gets where its host has none. F0000 is ERRCODE_CONFIG_FILE_ERROR.
NO_AUTHORITY = Refuse(
    ErrorResponse.fatal(
        "F0000", "client certificates can only be checked if a root certificate store is available"
    )
)


class ClientAuthorities:
    """The authorities of a listener's clients.

    :param listener: the settings.
    :param tls: makes the TLS connections; None where they are not known.
    :ivar missing: what has to be set before certificates can be asked for; empty for nothing.
    """

    def __init__(
        self, listener: ListenerSettings, tls: IOpenSSLServerConnectionCreator | None
    ) -> None:
        self._by_name = tls if isinstance(tls, ServerTLS) and tls.by_name else None
        self.missing = ""
        if self._by_name is not None:
            if not self._by_name.verifies_any:
                self.missing = "a CA in hosts_file"
        # Where hosts_file is to be in force and cannot be read, that is said elsewhere.
        elif not listener.tls.ssl_ca_file and not names_hosts(listener.tls):
            self.missing = "ssl_ca_file"

    def are_there_for(self, client: Client) -> bool:
        """Whether a client has been asked for a certificate, in its TLS handshake.

        :param client: the client.
        :returns: False where the host that it asks for has no CA.
        """
        return self._by_name is None or self._by_name.verifies_clients(client.sni)
