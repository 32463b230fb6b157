"""The status site, without a daemon."""
