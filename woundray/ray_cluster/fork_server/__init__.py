"""Ray workers as forks of one process that has imported torch once; see docs/architecture.md.

server: imports the modules once, and forks. setup_worker: replaces Ray's script of the same name, and requests a fork.
"""
