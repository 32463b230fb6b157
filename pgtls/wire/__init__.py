"""What goes over the wire before authentication. Sans-I/O: no twisted, no OpenSSL."""
