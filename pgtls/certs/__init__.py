"""Certificate authority and what it issues."""
