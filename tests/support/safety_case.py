"""The commands for certificates, with something of each in place."""

from __future__ import annotations

import shutil

from tests.support.authorities import AuthorityCase


class SafetyCase(AuthorityCase):
    """An authority with a server certificate, Alice's, and one that was revoked."""

    def setUp(self) -> None:
        super().setUp()
        self.make_authority()
        self.gone = self.sign(self.make_request(user="gone")).rename(self.top / "gone.crt")
        self.pgtls("revoke", "-D", self.ca, self.gone, "--reason", "keyCompromise")
        self.make_request("--force")
        self.sign(self.dot / "postgresql.csr")
        self.crt = shutil.copy(self.dot / "postgresql.crt", self.top / "alice.crt")

    @property
    def environ(self) -> dict[str, str]:
        return {"HOME": str(self.home), "PGUSER": "alice"}
