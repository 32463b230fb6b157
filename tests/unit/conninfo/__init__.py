"""Tests of pgtls.conninfo."""
