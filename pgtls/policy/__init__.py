"""Who may connect: client certificates, user name maps, PostgreSQL's authentication files."""
