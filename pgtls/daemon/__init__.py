"""The process behind ``twistd pgtls``: configuration, service, reload, workers."""
