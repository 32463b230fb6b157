"""The certificate that the daemon makes for gateways that name none."""

from __future__ import annotations

from pgtls.daemon.state import (
    DefaultCertificate,
    check_state_directory,
    default_certificate,
    state_directory,
)
from pgtls.errors import ConfigurationError
from pgtls.gateway.gateway_configuration import GatewaySettings, OwnCertificate
from pgtls.protocols.server_tls import ServerTLS, names_hosts
from pgtls.reading import not_noting, read_file
from pgtls.tls.server_context import ServerTLSSettings
from pgtls.wire.server_negotiation import SSL


def uses_default_certificate(settings: GatewaySettings) -> bool:
    """Whether a gateway shows the certificate that the daemon makes itself.

    :param settings: the gateway's.
    :returns: True where TLS is on and no certificate is named.
    """
    tls = settings.listener.tls
    named = tls.ssl_cert_file or tls.ssl_key_file or names_hosts(tls)
    return settings.listener.ssl is not SSL.OFF and not named


def check_without_certificate(tls: ServerTLSSettings) -> None:
    """Find what is wrong with the other settings, where no certificate is made.

    :param tls: the settings, which name none.
    :raises ConfigurationError: with every mistake.
    """
    try:
        ServerTLS(tls, quiet=True)
    except ConfigurationError as error:
        others = [each for each in error.mistakes if "ssl_cert_file" not in each]
        if others:
            raise ConfigurationError(*others) from None


def daemons_certificate(state_dir: str) -> DefaultCertificate:
    """The certificate that the daemon makes itself, made now if need be.

    :param state_dir: as the settings have it.
    :returns: its files.
    :raises ConfigurationError: the directory or a file in it cannot be used.
    """
    try:
        with not_noting():  # what is made in there is no change
            return default_certificate(state_directory(state_dir or None))
    except OSError as error:
        raise ConfigurationError(f"state directory: {error}") from error


def certificate_so_far(state_dir: str) -> DefaultCertificate | None:
    """The same, where it is there and will do. Nothing is made.

    :param state_dir: as the settings have it.
    :returns: its files; None where it would be made.
    :raises ConfigurationError: the directory or a file in it cannot be used.
    """
    with not_noting():
        return check_state_directory(state_dir or None)


def own_certificate(made: DefaultCertificate) -> OwnCertificate:
    """Read the certificate.

    :param made: its files.
    :returns: what a listener shows.
    :raises ConfigurationError: a file cannot be read.
    """
    try:
        # With its root, so that "pgtls trust" finds there what it is to trust.
        chain = read_file(made.server_crt) + read_file(made.root_crt)
    except OSError as error:
        raise ConfigurationError(f"state directory: {error}") from error
    return OwnCertificate(chain, str(made.server_crt), str(made.server_key))
