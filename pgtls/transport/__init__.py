"""Sockets without detours: listening, connecting, plaintext and TLS connections, the epoll."""
