"""The settings of ``upstream_via``: an SSH server between the gateway and its upstreams."""

from __future__ import annotations

import getpass
import os
from urllib.parse import unquote, urlsplit

import attrs

from pgtls import settings
from pgtls.errors import ConfigurationError
from pgtls.reading import exists, not_noting, read_file

SSH_PORT = 22

#: Keys that are used where none is named, as OpenSSH has them (``IdentityFile`` in ssh_config(5)).
_DEFAULT_KEYS = ("~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519")
_DEFAULT_KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")


@attrs.frozen
class SSHServer:
    """An SSH server: a bastion.

    :ivar user: logs in there.
    :ivar host: its name or address.
    :ivar port: its port.
    """

    user: str
    host: str
    port: int = SSH_PORT

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{self.user}@{host}:{self.port}"

    @property
    def known_as(self) -> str:
        """Its name in a known_hosts file: ``host``, or ``[host]:port`` (sshd(8), "SSH_KNOWN_HOSTS
        FILE FORMAT")."""
        name = self.host.lower()
        return name if self.port == SSH_PORT else f"[{name}]:{self.port}"


def parse_ssh_server(address: str) -> SSHServer:
    """Read ``ssh://user@host:port``.

    :param address: the address; without a user the operating system's, without a port 22.
    :returns: the server.
    :raises ConfigurationError: it is none.
    """
    wrong = ConfigurationError(f'"{address}" is not an address such as "ssh://user@bastion:22"')
    try:
        parts = urlsplit(address)
        port = SSH_PORT if parts.port is None else parts.port
    except ValueError:
        raise wrong from None
    host = parts.hostname or ""
    user = unquote(parts.username or "")
    if (
        parts.scheme != "ssh"
        or not host
        or not 0 < port < 65536
        or parts.path.strip("/")
        or parts.query
        or parts.fragment
        or any(not sign.isprintable() or sign.isspace() for sign in user + host)
    ):
        raise wrong
    if parts.password is not None:
        raise ConfigurationError(
            "a password in the address of an SSH server is not used: log in with a key"
        )
    return SSHServer(user or _system_user(), host, port)


def _system_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise ConfigurationError(
            'the operating system has no name for this user: write "ssh://user@..."'
        ) from None


@attrs.frozen
class SSHSettings:
    """What a gateway's table says of SSH."""

    upstream_via: str = settings.text(
        "", "reach upstreams through an SSH server: ssh://user@bastion:22"
    )
    ssh_identity_file: str = settings.text(
        "", "the private key for it; empty: ~/.ssh/id_ed25519, id_ecdsa, id_rsa and the agent's"
    )
    ssh_known_hosts_file: str = settings.text(
        "", "the file with its host key; empty: ~/.ssh/known_hosts, /etc/ssh/ssh_known_hosts"
    )
    ssh_passphrase_command: str = settings.text(
        "", "a command that prints the passphrase of its private key; %p is a prompt"
    )

    @property
    def identity_files(self) -> tuple[str, ...]:
        """The files with private keys, the one to try first first."""
        if self.ssh_identity_file:
            return (self.ssh_identity_file,)
        paths = (os.path.expanduser(path) for path in reversed(_DEFAULT_KEYS))
        return tuple(path for path in paths if exists(path))

    @property
    def known_hosts_files(self) -> tuple[str, ...]:
        """The files with host keys."""
        named = self.ssh_known_hosts_file
        return (named,) if named else tuple(map(os.path.expanduser, _DEFAULT_KNOWN_HOSTS))

    def check_known_hosts(self) -> None:
        """See that the file with host keys, if one is named, can be read.

        :raises ConfigurationError: it cannot.
        """
        if not self.ssh_known_hosts_file:
            return
        try:
            # It is read again for each SSH connection: no reload is needed when it changes.
            with not_noting():
                read_file(self.ssh_known_hosts_file)
        except OSError as error:
            raise ConfigurationError(
                "ssh_known_hosts_file: could not open file "
                f'"{self.ssh_known_hosts_file}": {error.strerror}'
            ) from error

    def check(self) -> None:
        """Find what is wrong with them.

        :raises ConfigurationError: with every mistake.
        """
        if self.upstream_via:
            try:
                parse_ssh_server(self.upstream_via)
            except ConfigurationError as error:
                raise ConfigurationError(f"upstream_via: {error}") from None
            return
        alone = [
            field.name
            for field in attrs.fields(SSHSettings)
            if field.name != "upstream_via" and getattr(self, field.name)
        ]
        if alone:
            raise ConfigurationError(
                *(f"{name} has no effect without upstream_via" for name in alone)
            )
