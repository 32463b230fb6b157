"""Sockets without detours: listening, connecting, plaintext, TLS, splice, the epoll."""
