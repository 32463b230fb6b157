"""Tests of pgtls.policy."""
