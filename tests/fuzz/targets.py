"""All targets by their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from tests.fuzz import file_targets, wire_targets

TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        *(wire_targets.startup, wire_targets.client_negotiation, wire_targets.backend_messages),
        *(wire_targets.scram_client, wire_targets.scram_server, wire_targets.proxy_header),
        *(file_targets.conninfo, file_targets.hba, file_targets.ident, file_targets.hosts),
        *(file_targets.auth_file, file_targets.client_conf, file_targets.request),
        *(file_targets.certificate, file_targets.regular_expression),
    )
}

CORPORA = Path(__file__).parent / "corpora"


def corpus(name: str) -> Iterator[tuple[str, bytes]]:
    """The inputs of a target: what its fuzzing begins with, and what it has found.

    :param name: the target's.
    :returns: name and content of each.
    """
    for path in sorted((CORPORA / name).iterdir()):
        yield path.name, path.read_bytes()
