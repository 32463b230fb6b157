"""Tests of pgtls.commands."""
