"""Which clients a listener admits: the certificate held against the role that is asked for."""

from __future__ import annotations

from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

from pgtls.errors import ConfigurationError
from pgtls.policy.auth_file import AuthFile
from pgtls.policy.client_identity import ClientCert, ClientNotVerified, check_client
from pgtls.policy.ident_map import IdentMap
from pgtls.protocols.client_authorities import NO_AUTHORITY, ClientAuthorities
from pgtls.protocols.interfaces import IAccessPolicy
from pgtls.protocols.server_settings import AuthType, ListenerSettings
from pgtls.protocols.stages import ADMIT, Admit, Authenticate, Client, Decision, Refuse
from pgtls.wire.server_negotiation import SSL

#: pg_hba.conf's method ``cert`` is trust with clientcert=verify-full.
_BY_CERTIFICATE = Admit("", "cert")


@implementer(IAccessPolicy)
class Admission:
    """``clientcert``, ``clientname``, ``map``, ``ident_file``, ``auth_type`` and ``auth_file``.

    :param listener: the settings.
    :param tls: makes the TLS connections; None where they are not known.
    :raises ConfigurationError: they do not go together, or the file cannot be used.
    """

    def __init__(
        self, listener: ListenerSettings, tls: IOpenSSLServerConnectionCreator | None = None
    ) -> None:
        self._listener = listener
        self._authorities = ClientAuthorities(listener, tls)
        mistakes = []
        if listener.clientcert is not ClientCert.NO:
            if missing := self._authorities.missing:
                mistakes.append(f"clientcert = {listener.clientcert} needs {missing}")
            if listener.ssl is not SSL.REQUIRE:
                mistakes.append(f"clientcert = {listener.clientcert} needs ssl = require")
        if bool(listener.map) != bool(listener.ident_file):
            mistakes.append("map and ident_file are needed together")
        if listener.map and listener.clientcert is not ClientCert.VERIFY_FULL:
            mistakes.append("map needs clientcert = verify-full")
        self._ident_map = None
        try:
            if listener.ident_file:
                self._ident_map = IdentMap.load(listener.ident_file)
        except ConfigurationError as error:
            mistakes.extend(error.mistakes)
        self._auth_file = None
        if listener.auth_type is AuthType.SCRAM_SHA_256 and not listener.auth_file:
            mistakes.append(f"auth_type = {listener.auth_type} needs auth_file")
        try:
            if listener.auth_file:
                self._auth_file = AuthFile.load(listener.auth_file)
        except ConfigurationError as error:
            mistakes.extend(error.mistakes)
        if mistakes:
            raise ConfigurationError(*mistakes)
        # What does not change from client to client.
        self._needs_certificate = listener.clientcert is not ClientCert.NO
        self._by_password = listener.auth_type is AuthType.SCRAM_SHA_256
        self._admit = _BY_CERTIFICATE if listener.clientcert is ClientCert.VERIFY_FULL else ADMIT

    def decide(self, client: Client) -> Decision:
        """Compare a client's certificate with the role that it asks for.

        :param client: the client.
        :returns: whether it may connect.
        """
        certificate = client.tls.certificate if client.tls is not None else None
        if self._needs_certificate and not self._authorities.are_there_for(client):
            return NO_AUTHORITY
        if self._needs_certificate or certificate is not None:
            try:
                check_client(
                    certificate,
                    client.startup.user,
                    clientcert=self._listener.clientcert,
                    clientname=self._listener.clientname,
                    ident_map=self._ident_map,
                    map_name=self._listener.map or None,
                )
            except ClientNotVerified as error:
                return Refuse(error.response, error.log_detail)
        if self._auth_file is None or not self._by_password:
            return self._admit
        return Authenticate(
            self._auth_file.secrets.get(client.startup.user),
            self._auth_file.mock_nonce,
            Admit(f"method={self._listener.auth_type}", str(self._listener.auth_type)),
        )
