"""A status document, with names that try to be something else."""

from __future__ import annotations

from pgtls.gateway.activity import ClientCertificate, OpenSession
from pgtls.gateway.plaintext_clients import PlaintextClient
from pgtls.status.expiry_table import ExpiryStatus
from pgtls.status.history import History
from pgtls.status.status_document import (
    GatewayStatus,
    RefusalStatus,
    ReloadStatus,
    StatusDocument,
    UpstreamStatus,
    WorkerStatus,
)

#: HTML, and something for a terminal.
HOSTILE = "\"><img src=x onerror=alert(1)><script>alert(2)</script>&amp;'\x1b[2J\x9b2J\u202e"

NOW = 1_790_000_000.0
GATEWAY = "127.0.0.1:6432"


def session(user: str = "alice", *, plaintext: bool = False) -> OpenSession:
    """An open session of that role."""
    return OpenSession(
        gateway=GATEWAY,
        route="1",
        address="192.0.2.7(1234)",
        user=user,
        database=HOSTILE,
        tls_version=None if plaintext else "TLSv1.3",
        cipher=None if plaintext else "TLS_AES_256_GCM_SHA384",
        group=None if plaintext else "X25519MLKEM768",
        sni=None if plaintext else HOSTILE,
        certificate=None
        if plaintext
        else ClientCertificate(subject=HOSTILE, issuer=HOSTILE, serial="0A1B2C"),
        authentication="trust",
        server="db.example.com:5432",
        since=NOW - 3700,
        bytes_from_client=1234,
        bytes_to_client=56_789_000,
    )


def status_document(sessions: int = 3, *, ready: bool = True) -> StatusDocument:
    """A document in which there is something of everything.

    :param sessions: how many are open.
    :param ready: whether nothing is wrong.
    """
    return StatusDocument(
        version="1.2.3",
        pid=4711,
        started=NOW - 90_000,
        time=NOW,
        state="serving",
        ready=ready,
        problems=[] if ready else [f"the upstream is not reachable: {HOSTILE}"],
        gateways=[
            GatewayStatus(
                gateway=GATEWAY,
                ssl="on",
                listening=True,
                open={"1": sessions},
                connections=sessions,
                max_connections=1000,
                upstreams=[
                    UpstreamStatus(
                        name="1",
                        hosts="db.example.com:5432",
                        upstream_via=f"ssh://{HOSTILE}@bastion",
                        reached=ready,
                        checked=NOW - 2,
                        error="" if ready else HOSTILE,
                    )
                ],
            ),
            GatewayStatus(
                gateway="[::1]:6433",
                ssl="require",
                listening=ready,
                open={},
                connections=0,
                max_connections=10,
                upstreams=[],
            ),
        ],
        open_sessions=sessions,
        sessions=[session(f"role{n}", plaintext=n % 3 == 2) for n in range(sessions)],
        totals={
            "connected": 12345,
            "refused": 67,
            "refused_by_server": 8,
            "plaintext": 9,
            "tls_errors": 1,
            "cancel_requests": 2,
            "cancel_requests_dropped": 3,
            "bytes_from_client": 4_000_000,
            "bytes_to_client": 5_000_000_000,
        },
        tls_versions={"TLSv1.3": 12336, "plaintext": 9},
        refusals=[
            RefusalStatus(
                gateway=GATEWAY,
                reason="plaintext refused",
                sqlstate="28000",
                count=67,
                last_seen=NOW - 30,
                address="192.0.2.8(4321)",
                detail=HOSTILE,
            )
        ],
        plaintext=[
            PlaintextClient(
                gateway=GATEWAY,
                address="192.0.2.9",
                user=HOSTILE,
                database="shop",
                count=9,
                last_seen=NOW - 60,
            )
        ],
        certificates=[
            ExpiryStatus(
                gateway=GATEWAY,
                kind="certificate",
                name=name,
                file="/etc/pgtls/server.crt",
                upstream="",
                expires=NOW + days * 86400 + 1,
            )
            for name, days in (("CN=over", -2), (HOSTILE, 3), ("CN=soon", 20), ("CN=good", 300))
        ],
        reloads=ReloadStatus(
            succeeded=3,
            failed=0 if ready else 1,
            last=NOW - 100,
            mistakes=[] if ready else [HOSTILE],
        ),
        workers=WorkerStatus(wanted=2, ready=2, replaced=1),
        history=History(
            interval=5.0,
            open=[1, 2, sessions],
            connected=[0.2, 4.0, 12.5],
            refused=[0.0, 0.0, 0.2],
            bytes_from_client=[0.0, 100.0, 1000.0],
            bytes_to_client=[0.0, 123456.0, 7654321.0],
        ),
    )
