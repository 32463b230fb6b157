"""Tests of pgtls.tls."""
