"""Utilities of the operating system: atomic files, checksums, locks, ports, hardware, redaction of secrets."""
