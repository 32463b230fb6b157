"""The ``pgtls`` command line."""
