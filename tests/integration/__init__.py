"""Tests against real servers and clients."""
