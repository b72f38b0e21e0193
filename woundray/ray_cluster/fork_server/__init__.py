"""Ray workers as forks of one process that has imported torch once; see docs/architecture.md.

server: imports and forks. setup_worker: stands in for Ray's script of the same name, and asks for a fork.
"""
