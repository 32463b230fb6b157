"""What a client gets to read when its server cannot be had."""

from __future__ import annotations

from pgtls.errors import ConnectFailed, PgTLSError, SessionAttributesNotMet
from pgtls.wire.messages import ErrorResponse, ServerRejected


def response_for_client(error: PgTLSError) -> ErrorResponse:
    """Choose what a client gets to read when its server cannot be had.

    :param error: why.
    :returns: the server's own response as it came; otherwise FATAL 57P03 where no server is as
        ``target_session_attrs`` wants it, 08006 where there is no connection and 08001 where one
        was refused, without the place: that is for the log.
    """
    if isinstance(error, ServerRejected):
        return error.response
    if isinstance(error, ConnectFailed | SessionAttributesNotMet):
        return ErrorResponse.fatal(
            "08006" if isinstance(error, ConnectFailed) else "57P03",
            f"could not connect to the upstream server: {error.reason}",
        )
    return ErrorResponse.fatal(
        "08001", f"could not make a secure connection to the upstream server: {error.reason}"
    )
