"""Tests of pgtls.daemon."""
