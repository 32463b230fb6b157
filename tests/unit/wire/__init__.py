"""Tests of pgtls.wire."""
