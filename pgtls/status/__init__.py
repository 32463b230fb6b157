"""The daemon's status: metrics, health, a page for a person, over HTTP."""
