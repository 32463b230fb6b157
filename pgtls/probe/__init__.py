"""What a server does, and what a connection string means."""
