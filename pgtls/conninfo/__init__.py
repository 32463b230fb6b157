"""libpq's connection strings: grammar, keywords, defaults, hosts, checks."""
