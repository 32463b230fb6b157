"""Why clients are refused, in a few words each: no client can make up another one.

What a log line says of a refusal is about one client, its role and its certificate; for counting
there has to be a short list.
"""

from __future__ import annotations

from pgtls.protocols.stages import Refused, Stage

SERVER = "refused by the server"
OTHER = "other"

#: Where the log's reason begins so.
_BEGINNINGS = (
    ("could not accept SSL connection", "TLS handshake failed"),
    ("canceling authentication due to timeout", "timeout"),
    ("connection without SSL encryption refused", "plaintext refused"),
    ("sorry, too many clients already", "too many clients"),
    ("the database system is shutting down", "shutting down"),
    ("cancel request", "cancel request refused"),
    ("PROXY", "PROXY header refused"),
    ("invalid length of startup packet", "protocol violation"),
    ("incomplete startup packet", "protocol violation"),
    ("received direct SSL connection request", "protocol violation"),
    ("no pg_hba.conf entry", "no pg_hba.conf entry"),
    ("pg_hba.conf rejects", "rejected by pg_hba.conf"),
    ("no route for", "no route"),
)

#: Where that says nothing, what the client got to read does.
_SQLSTATES = {
    "08001": "upstream not secure",
    "08004": "no route",
    "08006": "upstream not reachable",
    "08P01": "protocol violation",
    "0A000": "unsupported protocol",
    "28000": "authorization refused",
    "28P01": "password authentication failed",
    "53300": "too many clients",
    "57014": "timeout",
    "57P03": "shutting down",
    "XX000": "internal error",
}

#: All that :func:`reason_of` returns.
REASONS = tuple(
    sorted(
        {
            *(reason for _, reason in _BEGINNINGS),
            *_SQLSTATES.values(),
            "client certificate",
            SERVER,
            OTHER,
        }
    )
)


def is_servers(refused: Refused) -> bool:
    """Whether it is the server that has refused a client, in answer to the StartupMessage.

    :param refused: the client.
    :returns: whether what the client got to read came from there.
    """
    response = refused.response
    return refused.stage is Stage.UPSTREAM and response is not None and bool(response.raw)


def reason_of(refused: Refused) -> str:
    """Why a client was refused.

    :param refused: the client.
    :returns: one of :data:`REASONS`.
    """
    if is_servers(refused):
        return SERVER
    if refused.verify_failure is not None:
        return "client certificate"
    response = refused.response
    said = response.message if response is not None else refused.reason
    if refused.stage is not Stage.UPSTREAM:
        for beginning, reason in _BEGINNINGS:
            if said.startswith(beginning):
                return reason
        if refused.stage is Stage.POLICY and "certificate" in said:
            return "client certificate"
    return _SQLSTATES.get(response.sqlstate, OTHER) if response is not None else OTHER
