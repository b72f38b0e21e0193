"""`woundray doctor`: state of this machine, and forecast of a study on it.

services + photographs + hardware -> study_forecast -> diagnosis (values for a program, a table for a person).
"""
