"""TLS contexts by pyOpenSSL; PEM, certificates and key files; server identity; revocation."""
