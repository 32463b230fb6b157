"""What OpenSSL reads in only one way that is right, and why it does not where it does not."""

from __future__ import annotations

from OpenSSL import SSL, crypto

from pgtls.tls.pem import file_of


def use_chain(context: SSL.Context, chain: bytes) -> None:
    """SSL_CTX_use_certificate_chain_file() for what has been read already.

    :param context: the context.
    :param chain: PEM: the certificate itself first. Not encrypted: OpenSSL would ask for the
        password at the terminal.
    :raises SSL.Error: OpenSSL refuses it.
    """
    # add_extra_chain_cert() holds intermediates for the context as a whole: each of several
    # certificates would be sent with those of all. Only the call that reads a file holds them by
    # certificate.
    with file_of(chain) as path:
        context.use_certificate_chain_file(path)


def lenient_context() -> SSL.Context:
    """A context that takes keys of any size, to look at them and nothing else."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
    return context


def reason_of(error: SSL.Error | crypto.Error) -> str:
    """OpenSSL's text for an error: the first in its queue, as libpq shows it.

    :param error: the exception.
    :returns: the text.
    """
    queue = error.args[0] if error.args else []
    words = [entry[2] for entry in queue if entry[2]] if isinstance(queue, list) else []
    return words[0] if words else str(error) or "OpenSSL gives no reason"
