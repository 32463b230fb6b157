"""Which clients may connect: certificates, user name maps, PostgreSQL's authentication files."""
