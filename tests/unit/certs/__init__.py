"""Tests of pgtls.certs."""
