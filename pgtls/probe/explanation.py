"""What libpq does with a connection string, in plain words, without connecting.

Source: PostgreSQL's documentation, "SSL Support" in the chapter on libpq; ``fe-connect.c`` and
``fe-secure-openssl.c`` in ``src/interfaces/libpq``. Where libpq and pgtls differ, it is libpq that
is explained, and the difference is said.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from pgtls.conninfo.connection_string import ConnInfo, Host
from pgtls.conninfo.defaults import add_defaults, home_directory, service_parameters
from pgtls.conninfo.grammar import parse_text
from pgtls.conninfo.keywords import OPTIONS, LoadBalanceHosts
from pgtls.errors import ConfigurationError
from pgtls.probe import client_files_explained as files
from pgtls.tls.client_context import sni
from pgtls.tls.server_identity import host_address
from pgtls.wire.attempts import SSLMode, SSLNegotiation
from pgtls.wire.session_attributes import TargetSessionAttrs

_VERIFYING = (SSLMode.VERIFY_CA, SSLMode.VERIFY_FULL)

#: Which sessions will do, by target_session_attrs.
_SESSIONS = {
    TargetSessionAttrs.READ_WRITE: "that can write",
    TargetSessionAttrs.READ_ONLY: "that are read-only",
    TargetSessionAttrs.PRIMARY: "on a primary",
    TargetSessionAttrs.STANDBY: "on a hot standby",
    TargetSessionAttrs.PREFER_STANDBY: "on a hot standby, or if there is none on any server,",
}

#: Parameters that are shown also where they are not set.
_ALWAYS = ("host", "port", "sslmode", "sslnegotiation")


@attrs.frozen
class Parameter:
    """One parameter that counts.

    :ivar origin: where its value comes from.
    """

    keyword: str
    value: str
    origin: str


@attrs.define
class Explanation:
    """What will happen; the JSON has these keys.

    :ivar refused: why libpq would not even try; nothing else is then known.
    :ivar fails: why TLS is certain to fail.
    :ivar protection: it all in one sentence.
    """

    refused: list[str] = attrs.field(factory=list)
    protection: str = ""
    parameters: list[Parameter] = attrs.field(factory=list)
    attempts: list[str] = attrs.field(factory=list)
    verified: list[str] = attrs.field(factory=list)
    not_protected: list[str] = attrs.field(factory=list)
    traps: list[str] = attrs.field(factory=list)
    fails: list[str] = attrs.field(factory=list)


def explain_conninfo(text: str, environ: Mapping[str, str]) -> Explanation:
    """Explain a connection string, as it is read in this environment.

    :param text: the connection string.
    :param environ: the environment, for the PG* variables and HOME.
    :returns: what libpq does with it.
    """
    try:
        given = parse_text(text)
        parameters = _parameters(given, environ)
        conninfo = ConnInfo.from_parameters(given, environ)
    except ConfigurationError as error:
        return Explanation(refused=list(error.mistakes), protection="libpq refuses it.")
    found = Explanation(parameters=parameters)
    _Explainer(conninfo, found).explain()
    return found


def _parameters(given: Mapping[str, str], environ: Mapping[str, str]) -> list[Parameter]:
    """Each parameter, and where its value comes from.

    :raises ConfigurationError: the service cannot be read.
    """
    home = home_directory(environ)
    service = service_parameters(given, environ, home)
    named = given.get("service", environ.get("PGSERVICE"))
    values = add_defaults(given, environ, home)
    shown = []
    for keyword, value in values.items():
        option = OPTIONS[keyword]
        if keyword in given:
            origin = "the connection string"
        elif keyword in service:
            origin = f'service "{named}"'
        elif option.envvar is not None and option.envvar in environ:
            origin = f"${option.envvar}"
        elif keyword in _ALWAYS:
            origin = "default"
        else:
            continue
        shown.append(Parameter(keyword, "(not shown)" if option.secret else str(value), origin))
    return shown


class _Explainer:
    """Fills in an explanation of one connection string."""

    def __init__(self, conninfo: ConnInfo, found: Explanation) -> None:
        self._conninfo = conninfo
        self._found = found
        self._mode = conninfo.sslmode
        self._local = [host for host in conninfo.hosts if host.unix_path is not None]
        self._remote = [host for host in conninfo.hosts if host.unix_path is None]
        self._tls = bool(self._remote) and self._mode is not SSLMode.DISABLE
        self._roots = files.roots(conninfo) if self._tls else files.Roots()
        self._set = {each.keyword: each.value for each in found.parameters}

    def explain(self) -> None:
        """Everything."""
        self._attempts()
        self._sockets()
        if self._tls:
            self._chain()
            self._names()
            self._revocation()
            self._client_certificate()
            self._versions()
        self._fallbacks()
        self._eavesdropping()
        self._authentication()
        if self._remote and self._set.get("gssencmode", "prefer") == "prefer":
            self._found.traps.append(
                "A libpq with GSSAPI that finds a Kerberos ticket tries GSSAPI encryption first, "
                "before TLS, and then verifies no certificate: gssencmode=disable rules it out."
            )
        self._found.protection = self._protection()

    def _attempts(self) -> None:
        hosts = self._conninfo.hosts
        if self._conninfo.load_balance_hosts is LoadBalanceHosts.RANDOM and len(hosts) > 1:
            self._found.attempts.append("The hosts are tried in random order.")
        if sessions := _SESSIONS.get(self._conninfo.target_session_attrs):
            self._found.attempts.append(
                f"Only sessions {sessions} will do; where another one is found, the next host is "
                "tried."
            )
        for number, host in enumerate(hosts):
            then = "If there is no answer: " if number else ""
            self._found.attempts.append(f"{then}{_place(host)}, {self._attempt(host)}")
        if len(hosts) > 1 and self._conninfo.connect_timeout is None:
            self._found.traps.append(
                "No connect_timeout: a host that takes connections and says nothing is waited for "
                "without end, and the hosts behind it are never tried."
            )

    def _attempt(self, host: Host) -> str:
        if host.unix_path is not None:
            return "in plaintext."
        if self._conninfo.sslnegotiation is SSLNegotiation.DIRECT:
            return (
                "a TLS handshake at once (sslnegotiation=direct), which PostgreSQL 17 and later "
                'take. The server must select ALPN "postgresql". No TLS, no connection.'
            )
        return _ATTEMPTS[self._mode]

    def _sockets(self) -> None:
        if not self._local:
            return
        if self._conninfo.requirepeer:
            self._found.verified.append(
                f'The server on the Unix socket must run as user "{self._conninfo.requirepeer}".'
            )
        else:
            self._found.not_protected.append(
                "Each user who may write to the socket's directory can be the server (requirepeer)."
            )
        if self._mode.tls_required:
            self._found.traps.append(
                f"sslmode={self._mode} has no effect on a Unix socket: it never has TLS."
            )

    def _chain(self) -> None:
        found, roots = self._found, self._roots
        found.verified.extend(roots.verified)
        found.traps.extend(roots.traps)
        found.fails.extend(roots.fails)
        if roots.verified and self._mode is SSLMode.REQUIRE:
            found.traps.append(
                "A root certificate file is there, so sslmode=require verifies the chain too, as "
                "verify-ca does. Without the file it would verify nothing, and say nothing."
            )
        elif not roots.verified and not roots.fails:
            found.not_protected.append(
                "No certificate is verified: a man in the middle can pose as the server, "
                "read everything and change it."
            )

    def _names(self) -> None:
        found = self._found
        for host in self._remote:
            if self._mode is SSLMode.VERIFY_FULL:
                if host.host:
                    kind = "address" if host_address(host.host) else "name"
                    found.verified.append(
                        f'The certificate must be for the {kind} "{host.host}", as it is written.'
                    )
                else:
                    found.fails.append("verify-full needs host, and there is just hostaddr.")
            name = sni(host.host) if self._conninfo.sslsni else None
            if name:
                found.verified.append(
                    f'SNI tells the server, and every eavesdropper, the name "{name.decode()}".'
                )
            else:
                why = "host is no name" if self._conninfo.sslsni else "sslsni=0"
                found.verified.append(f"No SNI is sent ({why}).")
        if self._roots.verified and self._mode is not SSLMode.VERIFY_FULL:
            found.not_protected.append(
                "The server's name is not verified: any certificate of these authorities will do, "
                "also another server's."
            )

    def _revocation(self) -> None:
        if not self._roots.verified:
            return
        crls = files.revocation(self._conninfo)
        self._found.verified.extend(crls.verified)
        self._found.not_protected.extend(crls.not_protected)
        self._found.traps.extend(crls.traps)

    def _client_certificate(self) -> None:
        shown = files.client_certificate(self._conninfo)
        self._found.verified.extend(shown.verified)
        self._found.traps.extend(shown.traps)
        self._found.fails.extend(shown.fails)

    def _versions(self) -> None:
        conninfo = self._conninfo
        oldest = conninfo.ssl_min_protocol_version or "any"
        newest = conninfo.ssl_max_protocol_version or "TLSv1.3"
        self._found.verified.append(f"TLS versions: {oldest} to {newest}.")
        if oldest in ("any", "TLSv1", "TLSv1.1"):
            self._found.traps.append(f"ssl_min_protocol_version: {oldest} allows broken versions.")
        if conninfo.sslkeylogfile:
            self._found.traps.append(
                f'The secrets of every session go into "{conninfo.sslkeylogfile}": a reader '
                "of the file can decrypt them."
            )

    def _fallbacks(self) -> None:
        if not self._remote:
            return
        if self._mode is SSLMode.PREFER:
            self._found.traps.append(
                "sslmode=prefer falls back to plaintext silently: when the answer is N, "
                "when the handshake fails, when the certificate does not verify, and when the "
                "server refuses the session. A man in the middle can make it so."
            )
        if self._mode is SSLMode.ALLOW:
            self._found.traps.append(
                "sslmode=allow begins in plaintext, and comes to TLS only if the server refuses."
            )
        if self._tls and self._found.fails and not self._mode.tls_required:
            self._found.traps.append("TLS cannot succeed here, so it will be plaintext.")

    def _eavesdropping(self) -> None:
        if not self._remote:
            return
        if not self._mode.tls_required:
            self._found.not_protected.append(
                "It may be plaintext: an attacker on the way can read and change it."
            )
        required = self._conninfo.required_authentication
        cleartext = required is None or required.allows_cleartext
        if self._mode is not SSLMode.VERIFY_FULL and cleartext:
            self._found.not_protected.append(
                "A server that is not the real one may ask for the password in the clear: "
                "require_auth=scram-sha-256 forbids that."
            )

    def _authentication(self) -> None:
        required = self._conninfo.required_authentication
        if required is None:
            return
        if required.require_auth:
            self._found.verified.append(
                f'How the server has the client log in: "{required.require_auth}" (require_auth).'
            )
        if required.channel_binding:
            self._found.verified.append(
                "SCRAM binds the login to the TLS connection, or there is none "
                "(channel_binding=require)."
            )
            if not self._tls or self._local:
                self._found.traps.append(
                    "channel_binding=require cannot be met without TLS, on a Unix socket either."
                )

    def _protection(self) -> str:
        if self._found.fails and self._mode.tls_required and not self._local:
            return "No connection: TLS is required and cannot succeed."
        if not self._remote:
            return "A Unix socket: nothing leaves this machine, and nothing is encrypted."
        if not self._mode.tls_required:
            return "Not protected: it may end in plaintext, or begin there."
        if self._mode is SSLMode.VERIFY_FULL:
            return "Protected: encrypted, and only with the server that is named."
        if self._roots.verified:
            return "Encrypted, with any server that has a certificate of these authorities."
        return "Encrypted, but with any server that answers."


_ATTEMPTS = {
    SSLMode.DISABLE: "in plaintext. TLS is not asked for.",
    SSLMode.ALLOW: (
        "in plaintext. If the server refuses the session, a new connection: SSLRequest, then TLS."
    ),
    SSLMode.PREFER: (
        "SSLRequest. Answer S: TLS; N: on in plaintext. If TLS fails, or the server refuses the "
        "session inside TLS: a new connection in plaintext."
    ),
    **dict.fromkeys(
        (SSLMode.REQUIRE, SSLMode.VERIFY_CA, SSLMode.VERIFY_FULL),
        "SSLRequest. Answer S: TLS; anything else: no connection.",
    ),
}


def _place(host: Host) -> str:
    if host.unix_path is not None:
        return f'Unix socket "{host.unix_path}"'
    address = f" at {host.hostaddr}" if host.hostaddr and host.host else ""
    return f"TCP to {host.name}{address}, port {host.port}"
