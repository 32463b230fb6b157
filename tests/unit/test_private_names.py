"""What is private in Twisted and pyOpenSSL is used in one or two files each, and is still there."""

from __future__ import annotations

import ast
import socket
from pathlib import Path

from OpenSSL import SSL
from OpenSSL._util import ffi, lib
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.selectreactor import SelectReactor
from twisted.trial.unittest import SynchronousTestCase

import pgtls
from pgtls.tls import openssl
from pgtls.transport.twisted_private import (
    can_wait_elsewhere,
    epoll_descriptor,
    has_new_timers,
)

PACKAGE = Path(pgtls.__file__).parent

#: Private attributes of pyOpenSSL's Context, Connection, PKey and X509, and of its module SSL.
PYOPENSSL = {
    "_context",
    "_from_ssl",
    "_into_ssl",
    "_pkey",
    "_raise_current_error",
    "_raise_ssl_error",
    "_ssl",
    "_tlsext_servername_callback",
    "_verify_helper",
    "_x509",
}

#: Private attributes of Twisted's reactor.
TWISTED = {"_newTimedCalls", "_poller"}


def used(path: Path, owner: str) -> set[str]:
    """The attributes of a name that a module uses."""
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == owner
    }


def foreign_private(path: Path) -> set[str]:
    """The private attributes that a module uses of something other than itself."""
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    }


class PythonTests(SynchronousTestCase):
    def test_the_private_name_of_socket_is_there(self) -> None:
        self.assertTrue(hasattr(socket.socket, "_accept"))
        self.assertEqual(foreign_private(PACKAGE / "transport/accepting.py"), {"_accept"})


class PyOpenSSLTests(SynchronousTestCase):
    paths = (PACKAGE / "tls/openssl.py", PACKAGE / "tls/records.py")

    def test_each_function_of_its_lib_is_there(self) -> None:
        for path in self.paths:
            for name in used(path, "lib"):
                self.assertTrue(hasattr(lib, name), name)
            for name in used(path, "ffi"):
                self.assertTrue(hasattr(ffi, name), name)

    def test_each_private_attribute_is_there(self) -> None:
        context = SSL.Context(SSL.TLS_METHOD)
        crypto = openssl.crypto
        objects = (context, SSL.Connection(context), crypto.PKey(), crypto.X509(), SSL)
        for name in PYOPENSSL:
            self.assertTrue(any(hasattr(each, name) for each in objects), name)
        self.assertEqual(set().union(*map(foreign_private, self.paths)), PYOPENSSL)

    def test_no_other_module_uses_them(self) -> None:
        for path in set(PACKAGE.rglob("*.py")) - set(self.paths):
            self.assertNotIn("OpenSSL._util", path.read_text("utf-8"), path)
            self.assertEqual(foreign_private(path) & PYOPENSSL, set(), path)


class TwistedTests(SynchronousTestCase):
    path = PACKAGE / "transport/twisted_private.py"

    def setUp(self) -> None:
        self.reactor = EPollReactor()
        self.addCleanup(self.reactor.removeAll)

    def test_each_is_there_and_what_it_was(self) -> None:
        reactor = self.reactor
        self.assertTrue(can_wait_elsewhere(reactor))
        link = Path(f"/proc/self/fd/{epoll_descriptor(reactor)}").readlink()
        self.assertEqual(str(link), "anon_inode:[eventpoll]")
        self.assertFalse(has_new_timers(reactor))
        reactor.callLater(1, lambda: None)
        self.assertTrue(has_new_timers(reactor))

    def test_where_one_is_not_the_reactor_waits_as_ever(self) -> None:
        other: EPollReactor = SelectReactor()  # type: ignore[assignment]
        self.assertFalse(can_wait_elsewhere(other))

    def test_no_other_module_uses_them(self) -> None:
        for path in PACKAGE.rglob("*.py"):
            if path != self.path:
                names = foreign_private(path)
                self.assertNotIn("_newTimedCalls", names, path)
                text = path.read_text("utf-8")
                self.assertNotIn("reactor._", text, path)
