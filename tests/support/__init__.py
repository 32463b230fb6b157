"""What the tests share: real servers, certificates, child processes, fakes."""
