"""pyOpenSSL contexts, PEM, who the server is, revocation, key files."""
