"""PostgreSQL's ssl test suite as a table: the client's side of ``src/test/ssl/t/001_ssltests.pl``.

Each row is a server, a connection string and what comes of it. It is run through ``pgtls probe``
and through libpq 18, which has to find the same, in words that the same expression matches.
Where pgtls is meant to differ, the row says how libpq does it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Coroutine, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import attrs
from twisted.trial.unittest import TestCase

from pgtls.policy.client_identity import ClientCert
from pgtls.wire.server_negotiation import SSL
from tests.support.servers import Server
from tests.support.ssl_suite import (
    COMMON_NAME,
    DNS1,
    DNS2,
    PASSWORD,
    InProcess,
    certificates,
    libpq,
    probe,
    set_environment,
)
from tests.support.transports import Transports

COMMON = "user=ssltestuser dbname=trustdb hostaddr=127.0.0.1"
NOT_VERIFIED = "SSL error: certificate verify failed"


@attrs.frozen
class Row:
    """A connection and what comes of it.

    :ivar what: what the row is about, in the words of the suite where it is from there.
    :ivar error: an expression for the error; empty where it connects.
    :ivar libpq: the same for libpq, where it is another one; None where libpq cannot be run,
        since it would ask on the terminal.
    :ivar home: a directory of :data:`tests.support.ssl_suite.HOMES`.
    """

    what: str
    conninfo: str
    error: str = ""
    libpq: str | None = attrs.Factory(lambda self: self.error, takes_self=True)
    outcome: str = "ssl"
    home: str = "nowhere"
    environment: Mapping[str, str] = {}


def mismatch(names: str, host: str) -> str:
    """libpq's error for a host that is not among the names."""
    return re.escape(f'server certificate for {names} does not match host name "{host}"')


# Roots, sslcertmode, CRLs, host names: a certificate with a CN only ------------------------------

HOST = f"host={COMMON_NAME}"
ROOTS = "sslrootcert=ssl/root+server_ca.crt"
VERIFY_CA = f"{HOST} {ROOTS} sslmode=verify-ca"
NO_ROOT = 'root certificate file "invalid" does not exist'

CN_ONLY = [
    Row("no root, require", f"{HOST} sslrootcert=invalid sslmode=require"),
    Row("no root, verify-ca", f"{HOST} sslrootcert=invalid sslmode=verify-ca", NO_ROOT),
    Row("no root, verify-full", f"{HOST} sslrootcert=invalid sslmode=verify-full", NO_ROOT),
    *(
        Row(f"wrong root, {mode}", f"{HOST} sslrootcert=ssl/{root}_ca.crt sslmode={mode}", error)
        for root, error in (("client", NOT_VERIFIED), ("other", NOT_VERIFIED))
        for mode in ("require", "verify-ca", "verify-full")
    ),
    Row(
        "server CA without its root",
        f"{HOST} sslrootcert=ssl/server_ca.crt sslmode=verify-ca",
        NOT_VERIFIED,
    ),
    Row(
        "root without the intermediate that nobody sends",
        f"{HOST} sslrootcert=ssl/root_ca.crt sslmode=verify-ca",
        NOT_VERIFIED,
    ),
    Row(
        "the server's own certificate as root",
        f"{HOST} sslrootcert=ssl/server-cn-only.crt sslmode=verify-ca",
        NOT_VERIFIED,
    ),
    *(
        Row(f"right root, {mode}", f"{HOST} {ROOTS} sslmode={mode}")
        for mode in ("prefer", "require", "verify-ca", "verify-full")
    ),
    *(
        Row(f"several roots: {name}", f"{HOST} sslrootcert=ssl/{name}.crt sslmode=verify-full")
        for name in ("both-cas-1", "both-cas-2", "other-first", "other-last")
    ),
    *(
        Row(
            f"a root file that is none: {name}",
            f"{HOST} sslrootcert=ssl/{name} sslmode=require",
            f'could not (read|open) root certificate file "ssl/{name}"',
        )
        for name in ("no.crt", "directory.key")
    ),
    Row(
        "a root file that is cut off",
        f"{HOST} sslrootcert=ssl/cut-off.crt sslmode=verify-ca",
        "could not read root certificate file",
    ),
    Row(
        "a root file in DER",
        f"{HOST} sslrootcert=ssl/root_ca.der sslmode=verify-ca",
        'could not read root certificate file "ssl/root_ca.der"',
    ),
    Row("root.crt in the home directory", f"{HOST} sslmode=verify-full", home="with-root"),
    Row("wrong root.crt", f"{HOST} sslmode=require", NOT_VERIFIED, home="with-other-root"),
    Row(
        "no root.crt in the home directory",
        f"{HOST} sslmode=verify-ca",
        'root certificate file ".*/with-client/.postgresql/root.crt" does not exist',
        home="with-client",
    ),
    # sslcertmode
    Row("sslcertmode=disable", f"{HOST} {ROOTS} sslmode=require sslcertmode=disable"),
    Row("sslcertmode=allow", f"{HOST} {ROOTS} sslmode=require sslcertmode=allow"),
    Row(
        "sslcertmode=require without a request",
        f"{HOST} {ROOTS} sslmode=require sslcertmode=require",
        "server did not request an SSL certificate",
    ),
    # CRLs
    Row(
        "CRL that is not there: libpq goes on",
        f"{VERIFY_CA} sslcrl=invalid",
        'sslcrl: could not load CRLs from "invalid": No such file or directory',
        libpq="",
    ),
    Row(
        "CRL that is none: libpq goes on",
        f"{VERIFY_CA} sslcrl=ssl/no.crt",
        'sslcrl: could not load CRLs from "ssl/no.crt"',
        libpq="",
    ),
    Row(
        "CRL directory that is not there: libpq verifies nothing any more",
        f"{VERIFY_CA} sslcrldir=invalid",
        'sslcrldir: could not load CRLs from "invalid": No such file or directory',
        libpq=NOT_VERIFIED,
    ),
    Row("CRL without roots is not asked", f"{HOST} sslmode=require sslcrl=invalid"),
    Row("CRL of a different CA", f"{VERIFY_CA} sslcrl=ssl/client.crl", NOT_VERIFIED),
    Row("directory, a different CA", f"{VERIFY_CA} sslcrldir=ssl/client-crldir", NOT_VERIFIED),
    Row("CRL, not revoked", f"{VERIFY_CA} sslcrl=ssl/root+server.crl"),
    Row("directory, not revoked", f"{VERIFY_CA} sslcrldir=ssl/root+server-crldir"),
    Row(
        "file of a different CA, and the right directory",
        f"{VERIFY_CA} sslcrl=ssl/client.crl sslcrldir=ssl/root+server-crldir",
    ),
    Row("no CRL for the root", f"{VERIFY_CA} sslcrl=ssl/server.crl", NOT_VERIFIED),
    Row(
        "expired CRL",
        f"{VERIFY_CA} sslcrl=ssl/root+expired.crl",
        r"certificate verify failed: CRL has expired \(the one of .*server CA.* at 20.* UTC\)",
        libpq=NOT_VERIFIED,
    ),
    Row(
        "expired CRL in a directory",
        f"{VERIFY_CA} sslcrldir=ssl/root+expired-crldir",
        r"certificate verify failed: CRL has expired \(the one of .*server CA.* at 20.* UTC\)",
        libpq=NOT_VERIFIED,
    ),
    Row("root.crl in the home directory", f"{HOST} sslmode=verify-ca", home="with-crl"),
    Row(
        "root.crl of a different CA",
        f"{HOST} sslmode=verify-ca",
        NOT_VERIFIED,
        home="with-client-crl",
    ),
    Row(
        "root.crl makes way for one that is named",
        f"{VERIFY_CA} sslcrl=ssl/root+server.crl",
        home="with-client-crl",
    ),
    # host names
    Row("wrong host, require", f"host=wronghost.test {ROOTS} sslmode=require"),
    Row("wrong host, verify-ca", f"host=wronghost.test {ROOTS} sslmode=verify-ca"),
    Row(
        "wrong host, verify-full",
        f"host=wronghost.test {ROOTS} sslmode=verify-full",
        mismatch(f'"{COMMON_NAME}"', "wronghost.test"),
    ),
    Row("upper case", f"host=Common-Name.PG-SSLtest.TEST {ROOTS} sslmode=verify-full"),
    Row(
        "trailing dot",
        f"host={COMMON_NAME}. {ROOTS} sslmode=verify-full",
        mismatch(f'"{COMMON_NAME}"', f"{COMMON_NAME}."),
    ),
    Row(
        "no host name",
        f"{ROOTS} sslmode=verify-full",
        "host name must be specified for a verified SSL connection",
    ),
    # direct TLS
    Row("direct", f"{HOST} {ROOTS} sslmode=verify-full sslnegotiation=direct"),
    Row(
        "direct, wrong root",
        f"{HOST} sslrootcert=ssl/other_ca.crt sslmode=require sslnegotiation=direct",
        NOT_VERIFIED,
    ),
]

# Names in the certificate -------------------------------------------------------------------------

FULL = f"{ROOTS} sslmode=verify-full"
MULTIPLE = f'"{DNS1}" (and 2 other names)'
SINGLE = '"single.alt-name.pg-ssltest.test"'


def matches(*hosts: str) -> list[Row]:
    """Hosts that the certificate is for."""
    return [Row(f"{host} matches", f"host={host} {FULL}") for host in hosts]


def differ(names: str, *hosts: str) -> list[Row]:
    """Hosts that it is not for; ``names`` as the error shows them."""
    return [
        Row(f"{host} does not match", f"host={host} {FULL}", mismatch(names, host))
        for host in hosts
    ]


NAMES = {
    "server-wildcard-cn": [
        *matches("foo.pg-ssltest.test", COMMON_NAME),
        *differ('"*.pg-ssltest.test"', "pg-ssltest.test", "a.b.pg-ssltest.test"),
    ],
    "server-ip-cn-only": [
        *matches("192.0.2.1"),
        *differ('"192.0.2.1"', "192.000.002.001", "192.0.2.10"),
    ],
    "server-ip-in-dnsname": [
        *matches("192.0.2.1"),
        *differ('"192.0.2.1"', "192.000.002.001"),
    ],
    "server-multiple-alt-names": [
        *matches(DNS1, DNS2, "foo.wildcard.pg-ssltest.test"),
        *differ(
            MULTIPLE,
            "wronghost.alt-name.pg-ssltest.test",
            "deep.subdomain.wildcard.pg-ssltest.test",
            "wildcard.pg-ssltest.test",
        ),
    ],
    "server-single-alt-name": [
        *matches("single.alt-name.pg-ssltest.test"),
        *differ(
            SINGLE,
            "wronghost.alt-name.pg-ssltest.test",
            "deep.subdomain.wildcard.pg-ssltest.test",
        ),
    ],
    "server-ip-alt-names": [
        *matches(
            "192.0.2.1",
            "192.000.002.001",
            "0xc0000201",
            "2001:DB8::1",
            "2001:db8:0:0:0:0:0:1",
            "2001:db8::0.0.0.1",
        ),
        *differ('"192.0.2.1" (and 1 other name)', "192.0.2.2", "::1", "2001:DB8::1/128"),
    ],
    "server-cn-and-alt-names": [
        *matches(DNS1, DNS2),
        *differ(f'"{DNS1}" (and 1 other name)', COMMON_NAME),
    ],
    "server-cn-and-ip-alt-names": matches(COMMON_NAME, "192.0.2.1", "2001:db8::1"),
    "server-ip-cn-and-alt-names": [
        *matches("192.0.2.2", "2001:db8::1"),
        *differ('"192.0.2.2" (and 1 other name)', "192.0.2.1"),
    ],
    "server-ip-cn-and-dns-alt-names": matches("192.0.2.1", DNS1, DNS2),
    "server-no-names": [
        Row("no names, verify-ca", f"{HOST} {ROOTS} sslmode=verify-ca"),
        Row(
            "no names, verify-full",
            f"{HOST} {FULL}",
            "could not get server's host name from server certificate",
        ),
    ],
}

# Other servers ------------------------------------------------------------------------------------

SYSTEM = f"sslrootcert=system {HOST}"
ROOT_IS_SYSTEM = {"SSL_CERT_FILE": "ssl/root_ca.crt"}

#: A server that sends its chain, so that the root alone is enough.
CHAIN = [
    Row("the root alone", f"{HOST} sslrootcert=ssl/root_ca.crt sslmode=verify-full"),
    Row("the chain's intermediate alone", f"{HOST} sslrootcert=ssl/server_ca.crt sslmode=verify-ca",
        NOT_VERIFIED),
    Row("system roots, private CA", f"{SYSTEM} sslmode=verify-full", NOT_VERIFIED),
    *(
        Row(
            f"system roots, {mode}",
            f"{SYSTEM} sslmode={mode}",
            f'weak sslmode "{mode}" may not be used with sslrootcert=system',
        )
        for mode in ("prefer", "require", "verify-ca")
    ),
    Row("SSL_CERT_FILE", f"{SYSTEM} sslmode=verify-full", environment=ROOT_IS_SYSTEM),
    Row(
        "system roots: verify-full is the default",
        "sslrootcert=system host=common-name.pg-ssltest.test.bad",
        mismatch(f'"{COMMON_NAME}"', "common-name.pg-ssltest.test.bad"),
        environment=ROOT_IS_SYSTEM,
    ),
    Row("SSL_CERT_FILE that is not there", SYSTEM, NOT_VERIFIED,
        environment={"SSL_CERT_FILE": "invalid"}),
    Row("system roots do not read the home directory", SYSTEM, NOT_VERIFIED, home="with-root"),
    Row("system roots and a CRL, which libpq leaves out", f"{SYSTEM} sslcrl=ssl/client.crl",
        NOT_VERIFIED, libpq="", environment=ROOT_IS_SYSTEM),
]  # fmt: skip

REVOKED = [
    Row("revoked, no CRL", VERIFY_CA),
    Row("revoked, CRL file", f"{VERIFY_CA} sslcrl=ssl/root+server.crl", NOT_VERIFIED),
    Row("revoked, directory", f"{VERIFY_CA} sslcrldir=ssl/root+server-crldir", NOT_VERIFIED),
    Row("revoked, root.crl", f"{HOST} sslmode=verify-ca", NOT_VERIFIED, home="with-crl"),
    Row("revoked, sslrootcert named, root.crl", VERIFY_CA, NOT_VERIFIED, home="with-crl"),
]

RANGE = "SSL error: .*\\s*This may indicate that the server does not support any SSL protocol"

VERSIONS = [
    Row(
        "TLSv1.2 only",
        f"{VERIFY_CA} ssl_min_protocol_version=TLSv1.2 ssl_max_protocol_version=TLSv1.2",
    ),
    Row(
        "range the wrong way round",
        f"{VERIFY_CA} ssl_min_protocol_version=TLSv1.2 ssl_max_protocol_version=TLSv1.1",
        "invalid SSL protocol version range",
    ),
    Row(
        "below the default minimum",
        f"{VERIFY_CA} ssl_max_protocol_version=TLSv1.1",
        "invalid SSL protocol version range",
    ),
    *(
        Row(
            f"incorrect {bound}",
            f"{VERIFY_CA} ssl_{bound}_protocol_version=incorrect_tls",
            f'invalid "ssl_{bound}_protocol_version" value',
        )
        for bound in ("min", "max")
    ),
    Row("in lower case", f"{VERIFY_CA} ssl_min_protocol_version=tlsv1.2"),
    Row("older ones allowed", f"{VERIFY_CA} ssl_min_protocol_version=TLSv1"),
]

ONLY_12 = [
    Row("server with 1.2", VERIFY_CA),
    Row("server with 1.2, client 1.3", f"{VERIFY_CA} ssl_min_protocol_version=TLSv1.3",
        f"{RANGE} version between TLSv1.3 and TLSv1.3"),
]  # fmt: skip

ONLY_13 = [
    Row("server with 1.3", VERIFY_CA),
    Row("server with 1.3, client 1.2", f"{VERIFY_CA} ssl_max_protocol_version=TLSv1.2",
        f"{RANGE} version between TLSv1.2 and TLSv1.2"),
]  # fmt: skip

SELF_SIGNED = f"{HOST} sslrootcert=ssl/server-self-signed.crt"

#: Servers where TLS is not compulsory: what a failure leads to.
OPTIONAL = [
    Row("disable", f"{HOST} sslmode=disable", outcome="plain"),
    Row("allow", f"{HOST} sslmode=allow", outcome="plain"),
    Row("prefer", f"{HOST} sslmode=prefer"),
    Row("prefer, wrong root", f"{HOST} sslrootcert=ssl/other_ca.crt sslmode=prefer",
        outcome="plain"),
    Row("prefer, useless root file", f"{HOST} sslrootcert=ssl/no.crt sslmode=prefer",
        outcome="plain"),
    Row("require, wrong root", f"{HOST} sslrootcert=ssl/other_ca.crt sslmode=require",
        NOT_VERIFIED),
    Row("plaintext, sslcertmode=require", f"{HOST} sslmode=disable sslcertmode=require",
        "server did not request an SSL certificate"),
]  # fmt: skip

# Client certificates ------------------------------------------------------------------------------

CERTDB = f"host=localhost {ROOTS} sslmode=require"
CLIENT = f"{CERTDB} sslcert=ssl/client.crt"
NEEDED = "connection requires a valid client certificate"
HAS_ACCESS = "has group or world access"
ALERT = "SSL error: (ssl|tls)[a-z0-9/]* alert"  # OpenSSL 4 no longer says ssl


def key(name: str) -> str:
    return f"{CLIENT} sslkey=ssl/{name}.key"


CLIENTS = [
    Row("no client certificate", f"{CERTDB} sslcert=invalid", NEEDED),
    Row("no client certificate in the home directory", CERTDB, NEEDED),
    *(
        Row(f"client key: {name}", key(name))
        for name in ("client", "client-der", "readonly", "client-sec1-pem", "client-sec1-der")
    ),
    *(
        Row(f"client key: {name}", f"{key(name)} sslpassword='{PASSWORD}'")
        for name in ("client-encrypted-pem", "client-sec1-encrypted")
    ),
    Row("encrypted DER", f"{key('client-encrypted-der')} sslpassword='{PASSWORD}'",
        'could not load private key file "ssl/client-encrypted-der.key"'),
    Row("a password for a key without", f"{key('client')} sslpassword=unused"),
    Row("wrong password", f"{key('client-encrypted-pem')} sslpassword=wrong",
        r'private key file "ssl/client-encrypted-pem\.key": bad decrypt'),
    Row("wrong password, DER", f"{key('client-encrypted-der')} sslpassword=wrong",
        r'could not load private key file "ssl/client-encrypted-der\.key"'),
    Row("no password", key("client-encrypted-pem"),
        r'private key file "ssl/client-encrypted-pem\.key": it is encrypted', libpq=None),
    Row("empty password", f"{key('client-encrypted-pem')} sslpassword=''",
        r'private key file "ssl/client-encrypted-pem\.key": it is encrypted', libpq=None),
    Row("world may read the key", key("all"), f'private key file "ssl/all.key" {HAS_ACCESS}'),
    Row("the group may read the key", key("group"), HAS_ACCESS if os.geteuid() else ""),
    Row("no key file", key("invalid"),
        'certificate present, but not private key file "ssl/invalid.key"'),
    Row("the key is a directory", key("directory"),
        'private key file "ssl/directory.key" is not a regular file'),
    Row("the key is none", key("no"), 'could not load private key file "ssl/no.key"'),
    Row("the key is another's", key("client-revoked"),
        '(certificate does not match|could not load) private key file "ssl/client-revoked.key"'),
    Row("the certificate is none", f"{CERTDB} sslcert=ssl/no.crt sslkey=ssl/client.key",
        'could not read certificate file "ssl/no.crt"'),
    Row("the certificate is a directory", f"{CERTDB} sslcert=ssl/root+server-crldir",
        r'could not (read|open) certificate file "ssl/root\+server-crldir"'),
    Row("a path that cannot be", f"{CERTDB} sslcert={'x' * 300}",
        "could not open certificate file"),
    Row("below a file there is no certificate", f"{CERTDB} sslcert=ssl/no.crt/client.crt", NEEDED),
    Row("certificate in DER", f"{CERTDB} sslcert=ssl/client.der sslkey=ssl/client.key",
        'could not read certificate file "ssl/client.der"'),
    *(
        Row(f"{kind} key", f"{CERTDB} sslcert=ssl/client-{kind}.crt sslkey=ssl/client-{kind}.key")
        for kind in ("rsa", "rsa-pss", "ed25519")
    ),
    Row("sslcertmode=require", f"{key('client')} sslcertmode=require"),
    Row("sslcertmode=allow", f"{key('client')} sslcertmode=allow"),
    Row("sslcertmode=disable", f"{key('client')} sslcertmode=disable", NEEDED),
    Row("sslcertmode=disable reads no key", f"{key('no')} sslcertmode=disable", NEEDED),
    Row("default files", CERTDB, home="with-client"),
    Row("default certificate, named key", f"{CERTDB} sslkey=ssl/client.key", home="without-key"),
    Row("default certificate without its key", CERTDB,
        "certificate present, but not private key file", home="without-key"),
    Row("default key that others can read", CERTDB, HAS_ACCESS, home="with-open-key"),
    Row("revoked",
        f"{CERTDB} sslcert=ssl/client-revoked.crt sslkey=ssl/client-revoked.key",
        f"{ALERT} certificate revoked"),
    Row("expired",
        f"{CERTDB} sslcert=ssl/client-expired.crt sslkey=ssl/client-expired.key",
        f"{ALERT} certificate expired"),
]  # fmt: skip

REQUESTED = [
    Row("sslcertmode=require without a certificate", f"{CERTDB} sslcertmode=require",
        "server accepted connection without a valid SSL certificate"),
    Row("sslcertmode=require, TLSv1.2",
        f"{CERTDB} sslcertmode=require ssl_max_protocol_version=TLSv1.2",
        "server accepted connection without a valid SSL certificate"),
    Row("sslcertmode=require with one", f"{key('client')} sslcertmode=require"),
    Row("sslcertmode=require with one, TLSv1.2",
        f"{key('client')} sslcertmode=require ssl_max_protocol_version=TLSv1.2"),
]  # fmt: skip

ROOT_ONLY = [
    Row("intermediate provided by the client",
        f"{CERTDB} sslcert=ssl/client+client_ca.crt sslkey=ssl/client.key"),
    Row("intermediate missing", key("client"), f"{ALERT} unknown ca"),
]  # fmt: skip

TABLE: list[tuple[InProcess, list[Row]]] = [
    (InProcess("server-cn-only"), CN_ONLY + VERSIONS),
    *((InProcess(name), rows) for name, rows in NAMES.items()),
    (InProcess("server-cn-only", chain=True), CHAIN),
    (InProcess("server-revoked"), REVOKED),
    *(
        (InProcess(f"server-{name}"), [Row("refused", f"{HOST} {FULL}", NOT_VERIFIED)])
        for name in ("expired", "not-yet", "for-clients")
    ),
    *(
        (InProcess(f"server-{kind}"), [Row(f"{kind} key of the server", f"{HOST} {FULL}")])
        for kind in ("rsa", "rsapss", "ed25519")
    ),
    (
        InProcess("server-of-old-ca", chain=True),
        [
            Row("no roots", f"{HOST} sslmode=require"),
            Row("old CA", f"{HOST} sslrootcert=ssl/root_ca.crt sslmode=require", NOT_VERIFIED),
        ],
    ),
    (
        InProcess("server-self-signed"),
        [
            Row("self-signed, its own root", f"{SELF_SIGNED} sslmode=verify-full"),
            Row("self-signed, another root", VERIFY_CA, NOT_VERIFIED),
        ],
    ),
    (InProcess("server-cn-only", ssl_max_protocol_version="TLSv1.2"), ONLY_12),
    (InProcess("server-cn-only", ssl_min_protocol_version="TLSv1.3"), ONLY_13),
    (InProcess("server-cn-only", ssl=SSL.ON), OPTIONAL),
    (
        InProcess(
            "server-cn-only",
            ssl_ca_file="ssl/root+client_ca.crt",
            ssl_crl_file="ssl/root+client.crl",
            clientcert=ClientCert.VERIFY_CA,
        ),
        CLIENTS,
    ),
    (InProcess("server-cn-only", ssl_ca_file="ssl/root+client_ca.crt"), REQUESTED),
    (
        InProcess("server-cn-only", ssl_ca_file="ssl/root_ca.crt", clientcert=ClientCert.VERIFY_CA),
        ROOT_ONLY,
    ),
]

# A real PostgreSQL --------------------------------------------------------------------------------

CERTIFIED = f"dbname=certdb {key('client')}"

POSTGRESQL = [
    Row("server doesn't accept non-SSL connections", f"{HOST} sslmode=disable",
        "no pg_hba.conf entry"),
    Row("prefer", f"{HOST} {ROOTS} sslmode=prefer"),
    Row("allow", f"{HOST} {ROOTS} sslmode=allow"),
    Row("verify-full", f"{HOST} {FULL}"),
    Row("verify-full, direct", f"{HOST} {FULL} sslnegotiation=direct"),
    Row("wrong host", f"host=wronghost.test {FULL}",
        mismatch(f'"{COMMON_NAME}"', "wronghost.test")),
    Row("wrong root", f"{HOST} sslrootcert=ssl/other_ca.crt sslmode=require", NOT_VERIFIED),
    Row("CRL", f"{HOST} {FULL} sslcrl=ssl/root+server.crl"),
    Row("TLSv1.2", f"{HOST} {FULL} ssl_max_protocol_version=TLSv1.2"),
    Row("sslcertmode=require, no certificate", f"{HOST} {FULL} sslcertmode=require",
        "server accepted connection without a valid SSL certificate"),
    Row("sslcertmode=require", f"{CERTIFIED} sslcertmode=require"),
    Row("no client certificate", f"dbname=certdb {CERTDB}", NEEDED),
    Row("no client certificate, sslcertmode=require",
        f"dbname=certdb {CERTDB} sslcertmode=require", NEEDED),
    Row("sslcertmode=disable", f"{CERTIFIED} sslcertmode=disable", NEEDED),
    Row("client certificate", CERTIFIED),
    Row("client key in DER", f"dbname=certdb {key('client-der')}"),
    Row("another user's certificate", f"{CERTIFIED} user=anotheruser",
        'certificate authentication failed for user "anotheruser"'),
    Row("verify-full", f"{CERTIFIED} dbname=verifydb"),
    Row("verify-full, another user", f"{CERTIFIED} dbname=verifydb user=anotheruser",
        'FATAL: .*"trust" authentication failed for user "anotheruser"'),
    Row("verify-ca, another user", f"{CERTIFIED} dbname=verifydb user=yetanotheruser"),
    Row("revoked client certificate",
        f"dbname=certdb {CERTDB} sslcert=ssl/client-revoked.crt sslkey=ssl/client-revoked.key",
        f"{ALERT} certificate revoked"),
]  # fmt: skip

HBA = """
local    all       all                         trust
hostssl  trustdb   all             127.0.0.1/32  trust
hostssl  certdb    all             127.0.0.1/32  cert
hostssl  verifydb  ssltestuser     127.0.0.1/32  trust  clientcert=verify-full
hostssl  verifydb  anotheruser     127.0.0.1/32  trust  clientcert=verify-full
hostssl  verifydb  yetanotheruser  127.0.0.1/32  trust  clientcert=verify-ca
"""


@cache
def postgresql() -> Server:
    """PostgreSQL 17, set up as the suite does it."""
    server = Server(
        17,
        ssl=True,
        hba=HBA,
        conf={"ssl_ca_file": "root+client_ca.crt", "ssl_crl_file": "root+client.crl"},
        files={
            "server.crt": certificates()["server-cn-only"].pem(),
            "server.key": certificates()["server-cn-only"].key.pem(),
            **{name: Path("ssl", name).read_bytes() for name in SERVER_FILES},
        },
    )
    for database in ("trustdb", "certdb", "verifydb"):
        server.psql(f"CREATE DATABASE {database} STRATEGY file_copy")
    for user in ("ssltestuser", "anotheruser", "yetanotheruser"):
        server.psql(f"CREATE USER {user}")
    return server


SERVER_FILES = ("root+client_ca.crt", "root+client.crl")


class _RowCase(Transports, TestCase):
    async def check(self, row: Row, port: int) -> None:
        """Run a row through both clients."""
        set_environment(self, **row.environment)
        conninfo = f"{COMMON} port={port} {row.conninfo}"
        home = os.path.abspath(f"ssl/{row.home}")
        self.compare(row, row.error, await probe(conninfo, home))
        if not row.error:
            self.check_transports()
        if row.libpq is not None:
            self.compare(row, row.libpq, await libpq(self, conninfo, home))

    def compare(self, row: Row, error: str, found: Any) -> None:
        if error:
            self.assertRegex(found.error, error)
        expected = "fail" if error else row.outcome
        self.assertEqual((found.outcome, bool(error)), (expected, bool(found.error)), found.error)


Listen = Callable[[TestCase], int]


def _test(listen: Listen, row: Row) -> Callable[[_RowCase], Coroutine[Any, Any, None]]:
    async def test(self: _RowCase) -> None:
        certificates()
        await self.check(row, listen(self))

    test.__doc__ = f"{row.what}: {row.conninfo}"
    return test


def _name(number: int, row: Row) -> str:
    return f"test_{number:03}_{re.sub('[^a-z0-9]+', '_', row.what.lower())}"


class Client(_RowCase):
    """The table, with servers of pgtls's own."""


class ClientOfPostgreSQL(_RowCase):
    """The same with PostgreSQL 17."""


for _number, (_server, _row) in enumerate((server, row) for server, rows in TABLE for row in rows):
    setattr(Client, _name(_number, _row), _test(_server.listen, _row))
for _number, _row in enumerate(POSTGRESQL):
    setattr(ClientOfPostgreSQL, _name(_number, _row), _test(lambda test: postgresql().port, _row))
