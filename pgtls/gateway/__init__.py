"""The daemon behind ``twistd pgtls``: configuration, relay, service."""
