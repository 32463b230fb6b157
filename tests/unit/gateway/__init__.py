"""Tests of pgtls.gateway."""
