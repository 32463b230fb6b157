"""PEM files of every shape: what libpq and PostgreSQL trust, show or refuse, so do we."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.errors import ConfigurationError
from pgtls.tls.client_context import ClientTLS
from pgtls.tls.server_context import ServerTLSSettings, server_context
from tests.support import servers
from tests.support.certificates import Authority, Files, Issued
from tests.support.encrypted_keys import ENCRYPTIONS, LEGACY, encrypted_key
from tests.support.in_memory import handshake
from tests.support.in_memory import server_context as showing
from tests.support.libpq import says
from tests.support.pem_shapes import shapes
from tests.support.processes import environment
from tests.support.servers import Server

REFUSED = "refused"

#: By whose authority what is signed: ``one`` and ``other``.
ONE, OTHER = Authority("one"), Authority("other")
LEAVES = {
    "one": ONE.issue(["localhost"], cn="localhost"),
    "other": OTHER.issue(["localhost"], cn="localhost"),
}
CLIENTS = {
    "one": ONE.issue(cn="postgres", client=True),
    "other": OTHER.issue(cn="postgres", client=True),
}

#: A client certificate is needed, and a verified one.
HBA = "hostssl all all all trust clientcert=verify-ca\nlocal all all trust\n"


@cache
def server_of(whose: str) -> Server:
    """A server that shows a certificate of ``one`` or of ``other``."""
    leaf = LEAVES[whose]
    return Server(17, ssl=True, files={"server.crt": leaf.chain(), "server.key": leaf.key.pem()})


@cache
def reloading() -> Server:
    """A server whose files change."""
    roots = ONE.pem() + OTHER.pem()
    return Server(
        17, ssl=True, hba=HBA, conf={"ssl_ca_file": "roots.crt"}, files={"roots.crt": roots}
    )


def reloads(*, conf: Mapping[str, str] = {}, files: Mapping[str, bytes] = {}) -> bool:
    """Whether PostgreSQL takes what is new in its TLS settings."""
    server = reloading()
    before = len(server.log())
    server.reload(conf=conf, files=files)
    says(server.conninfo(host=server.socket_dir))  # accepted when the reload is over
    return "SSL configuration was not reloaded" not in server.log()[before:]


class PEMCase(SynchronousTestCase):
    """Compares, shape by shape."""

    def setUp(self) -> None:
        self.files = Files(Path(self.mktemp()).absolute())

    def assert_same(self, ours: Mapping[str, str], theirs: Mapping[str, str], who: str) -> None:
        """All differences at once."""
        different = {
            shape: f"we: {ours[shape]}; {who}: {found}"
            for shape, found in theirs.items()
            if ours[shape] != found
        }
        self.assertEqual("; ".join(f"{shape}: {how}" for shape, how in different.items()), "")


def trusted_for(one: bytes, other: bytes) -> dict[str, bytes]:
    """A TRUSTED CERTIFICATE that says for what, beside another that does not."""
    settings = {
        "trusted_for_servers": ("-addtrust", "serverAuth"),
        "trusted_for_clients": ("-addtrust", "clientAuth"),
        "rejected_for_servers": ("-addreject", "serverAuth"),
        "rejected_for_clients": ("-addreject", "clientAuth"),
    }
    return {
        name: subprocess.run(
            ["openssl", "x509", "-trustout", *options], input=one, capture_output=True, check=True
        ).stdout
        + other
        for name, options in settings.items()
    }


class RootsOfClients(PEMCase):
    """``sslrootcert``."""

    def test_what_is_trusted(self) -> None:
        content = shapes(ONE.pem(), OTHER.pem())
        content |= trusted_for(ONE.pem(), OTHER.pem())
        content |= {
            "key_too": ONE.pem() + ONE.issued.key.pem(),
            "encrypted_key_too": ONE.issued.key.pem("secret") + ONE.pem(),
            "damaged_key_too": ONE.issued.key.pem().replace(b"\nM", b"\nA", 1) + ONE.pem(),
            "crl_too": ONE.crl() + OTHER.pem(),
            "crl_alone": ONE.crl(),
            "der": ONE.issued.shown.der,
        }
        paths = {shape: self.files.write(f"{shape}.crt", pem) for shape, pem in content.items()}
        ours = {shape: self.trusted_by_us(path) for shape, path in paths.items()}
        for who in ("libpq", "psql 15", "psql 17"):
            theirs = {shape: trusted_by(who, path) for shape, path in paths.items()}
            self.assert_same(ours, theirs, who)

    def trusted_by_us(self, path: str) -> str:
        try:
            conninfo = ConnInfo.parse(f"host=localhost sslmode=verify-ca sslrootcert={path}", {})
            tls = ClientTLS(conninfo)
        except ConfigurationError as error:
            self.assertIn(path, str(error))
            return REFUSED
        connects = {
            whose: handshake(showing(leaf), tls._context).client_error is None
            for whose, leaf in LEAVES.items()
        }
        return names(connects)


def trusted_by(who: str, path: str) -> str:
    """Whose servers libpq believes."""
    connects = {}
    for whose in LEAVES:
        conninfo = server_of(whose).conninfo(sslmode="verify-ca", sslrootcert=path)
        said = says(conninfo) if who == "libpq" else psql_says(int(who.split()[1]), conninfo)
        if "could not read root certificate file" in said:
            return REFUSED
        if said and "certificate verify failed" not in said:
            raise AssertionError(f"{path}: {said}")
        connects[whose] = not said
    return names(connects)


def names(connects: Mapping[str, bool]) -> str:
    """``one``, ``other``, ``one+other`` or ``nobody``."""
    return "+".join(whose for whose, good in connects.items() if good) or "nobody"


def psql_says(version: int, conninfo: str) -> str:
    """What a version's psql complains of; empty where it connects."""
    done = subprocess.run(
        [servers.psql(version), "-XAtqc", "select", "-d", conninfo],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr if done.returncode else ""


class FilesOfServers(PEMCase):
    """``ssl_ca_file``, ``ssl_crl_file``, ``ssl_cert_file`` and ``ssl_key_file``: PostgreSQL 17."""

    def accepted(self, setting: str, file: str, content: Mapping[str, bytes]) -> None:
        """Whose client certificates are accepted with each content of a file."""
        self.addCleanup(reloading().reload, conf={setting: ""})
        ours, theirs = {}, {}
        for shape, pem in content.items():
            theirs[shape] = self.accepted_by_postgresql(setting, file, pem)
            ours[shape] = self.accepted_by_us(setting, pem)
        self.assert_same(ours, theirs, "PostgreSQL 17")

    def accepted_by_postgresql(self, setting: str, file: str, pem: bytes) -> str:
        server = reloading()
        if not reloads(conf={setting: file}, files={file: pem}):
            return REFUSED
        connects = {}
        for whose, client in CLIENTS.items():
            crt, key = self.files.pair(whose, client)
            conninfo = server.conninfo(sslmode="require", sslcert=crt, sslkey=key)
            connects[whose] = not says(conninfo)
        return names(connects)

    def accepted_by_us(self, setting: str, pem: bytes) -> str:
        crt, key = self.files.pair("server", LEAVES["one"])
        named = {
            "ssl_cert_file": crt,
            "ssl_key_file": key,
            "ssl_ca_file": self.files.write("roots.crt", ONE.pem(), OTHER.pem()),
            setting: self.files.write("ours.pem", pem),
        }
        try:
            context = server_context(ServerTLSSettings(**named)).context
        except ConfigurationError:
            return REFUSED
        return names({whose: _accepts(context, client) for whose, client in CLIENTS.items()})

    def test_authorities(self) -> None:
        self.addCleanup(reloading().reload, conf={"ssl_ca_file": "roots.crt"})
        content = shapes(ONE.pem(), OTHER.pem())
        content |= trusted_for(ONE.pem(), OTHER.pem())
        content |= {"crl_too": ONE.crl() + OTHER.pem(), "der": ONE.issued.shown.der}
        self.accepted("ssl_ca_file", "changing.crt", content)

    def test_revocation_lists(self) -> None:
        one, other = ONE.crl(), OTHER.crl()
        content = shapes(one, other)
        revoking = shapes(ONE.crl([CLIENTS["one"]]), other)
        content |= {f"revoking_{shape}": pem for shape, pem in revoking.items()}
        content |= {"certificate_too": ONE.pem() + one + other}
        self.accepted("ssl_crl_file", "changing.crl", content)

    def test_certificates_and_keys(self) -> None:
        leaf, stranger = LEAVES["one"], LEAVES["other"]
        crt, key = leaf.pem(), leaf.key.pem()
        parameters = (
            b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        )
        pairs = {f"crt_{shape}": (pem, key) for shape, pem in shapes(crt, stranger.pem()).items()}
        pairs |= {
            f"key_{shape}": (crt, pem) for shape, pem in shapes(key, stranger.key.pem()).items()
        }
        pairs |= {
            "one_file": (crt + key, crt + key),
            "one_file_key_first": (key + crt, key + crt),
            "encrypted_key_and_certificate": (leaf.key.pem("secret") + crt, key),
            "parameters_in_front": (crt, parameters + key),
            "wrong_key_first": (crt, stranger.key.pem() + key),
            "right_key_first": (crt, key + stranger.key.pem()),
            "wrong_certificate_first": (stranger.pem() + crt, key),
            "crl_in_front": (ONE.crl() + crt, key),
            "der_certificate": (leaf.shown.der, key),
            "der_key": (crt, leaf.key.der()),
        }
        ours = {name: self.shown_by_us(*pair) for name, pair in pairs.items()}
        self.addCleanup(shown_by_postgresql, leaf.chain(), leaf.key.pem())
        theirs = {name: shown_by_postgresql(*pair) for name, pair in pairs.items()}
        self.assert_same(ours, theirs, "PostgreSQL 17")

    def shown_by_us(self, crt: bytes, key: bytes) -> str:
        try:
            settings = ServerTLSSettings(
                ssl_cert_file=self.files.write("own.crt", crt),
                ssl_key_file=self.files.write("own.key", key),
            )
            server_context(settings)
        except ConfigurationError:
            return REFUSED
        return "taken"


def _accepts(server: SSL.Context, client: Issued) -> bool:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.use_certificate(client.certificate)
    context.use_privatekey(client.key.private)
    return handshake(server, context).server_error is None


def shown_by_postgresql(crt: bytes, key: bytes) -> str:
    """Whether PostgreSQL takes a certificate and a key."""
    taken = reloads(files={"server.crt": crt, "server.key": key})
    return "taken" if taken else REFUSED


class PairsOfClients(PEMCase):
    """``sslcert`` and ``sslkey``."""

    def test_what_is_taken(self) -> None:
        client, stranger = CLIENTS["one"], CLIENTS["other"]
        crt, key = client.pem(), client.key.pem()
        encrypted = {
            cipher: encrypted_key(client.key, *arguments)
            for cipher, arguments in (ENCRYPTIONS | LEGACY).items()
        }
        pairs = {f"crt_{shape}": (pem, key) for shape, pem in shapes(crt, stranger.pem()).items()}
        pairs |= {
            f"key_{shape}": (crt, pem) for shape, pem in shapes(key, stranger.key.pem()).items()
        }
        pairs |= {
            "der_key": (crt, client.key.der()),
            "encrypted_der_key": (crt, client.key.der("secret")),
            "der_certificate": (client.shown.der, key),
        }
        pairs |= {f"encrypted_{cipher}": (crt, pem) for cipher, pem in encrypted.items()}
        ours, theirs = {}, {}
        for name, (certificate, private) in pairs.items():
            files = {
                "sslcert": self.files.write(f"{name}.crt", certificate),
                "sslkey": self.files.write(f"{name}.key", private),
                "sslpassword": "secret",
            }
            ours[name] = self.taken_by_us(files)
            theirs[name] = taken_by_libpq(files)
        self.assert_same(ours, theirs, "libpq")

    def taken_by_us(self, files: Mapping[str, str]) -> str:
        words = " ".join(f"{name}={value}" for name, value in files.items())
        try:
            ClientTLS(ConnInfo.parse(f"host=localhost sslmode=require {words}", {}))
        except ConfigurationError as error:
            self.assertNotIn("bad decrypt", str(error))
            return REFUSED
        return "taken"


def taken_by_libpq(files: Mapping[str, str]) -> str:
    """Whether libpq takes a certificate and a key."""
    said = says(server_of("one").conninfo(sslmode="require", **files))
    if not said:
        return "taken"
    if "certificate" not in said and "private key" not in said:
        raise AssertionError(said)
    return REFUSED
