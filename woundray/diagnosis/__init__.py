"""`woundray doctor`: what this machine has, and what a study would do on it.

services + photographs + hardware -> study_forecast -> diagnosis (values for a program, a table for a person).
"""
