"""Tests of one module each: no server, whole in under a minute."""
