"""pyOpenSSL contexts, who the server is, who the client is, key files, CRLs."""
