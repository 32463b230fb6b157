"""``ssl_passphrase_command``: the passphrase of a server's private key.

Source: ``run_ssl_passphrase_command`` in ``src/backend/libpq/be-secure-common.c``.
"""

from __future__ import annotations

import os
import shlex
import subprocess

from pgtls.errors import ConfigurationError
from pgtls.tls.sources import KeySource

#: Seconds that the command may take.
PASSPHRASE_TIMEOUT = 60

_SET_IT = "set ssl_passphrase_command to a command that prints its passphrase"


def passphrase(
    command: str, key: KeySource, advice: str = _SET_IT, name: str = "ssl_passphrase_command"
) -> bytes:
    """What the command prints, without the line's end.

    :param command: with ``%p`` in it for a prompt; empty for none.
    :param key: the key that it is for.
    :param advice: what to do where there is no command.
    :param name: the command's setting.
    :returns: the passphrase.
    :raises ConfigurationError: there is no command, or it failed.
    """
    key_path = os.fspath(key) if isinstance(key, str | os.PathLike) else "the key in memory"
    if not command:
        raise ConfigurationError(f'private key file "{key_path}" is encrypted: {advice}')
    prompt = f"Enter PEM pass phrase for {key_path}:"
    try:
        # As PostgreSQL, with a shell: the setting is the operator's own.
        done = subprocess.run(  # noqa: S602
            command.replace("%p", shlex.quote(prompt)),
            shell=True,
            capture_output=True,
            check=True,
            timeout=PASSPHRASE_TIMEOUT,
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise ConfigurationError(f"{name} failed: {error}") from error
    return done.stdout.rstrip(b"\r\n")
