"""Tests of pgtls.transport."""
