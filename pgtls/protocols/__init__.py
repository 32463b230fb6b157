"""Twisted adapters of the negotiation: server and client Protocol, endpoints, endpoint strings."""
