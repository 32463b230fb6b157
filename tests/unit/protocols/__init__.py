"""Tests of pgtls.protocols."""
