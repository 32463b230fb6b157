"""One listener at work: relay, cancel, channel binding."""
