"""This machine: files, locks, folders, ports, hardware, and secrets kept out of output. It knows nothing of wounds."""
