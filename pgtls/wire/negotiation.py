"""What both sides of the negotiation share: the ALPN protocol, and the action "send"."""

from __future__ import annotations

from dataclasses import dataclass

#: The ALPN protocol of PostgreSQL (PostgreSQL documentation, "Message Flow", "SSL Session
#: Encryption").
ALPN = "postgresql"


# The actions of both sides, and packets, are not frozen: some ten are made for each connection, and
# a frozen one takes more than twice as long.
@dataclass(slots=True)
class Send:
    """Send these bytes."""

    data: bytes
