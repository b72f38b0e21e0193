"""Command line: flags, help, progress bars, tables, exit codes.

Arguments -> command (parse) -> typed settings; results -> tables on stdout. Nothing slow is imported here.
"""
