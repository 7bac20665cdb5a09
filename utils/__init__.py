"""Configs, files, tables, parts of long jobs, command lines, devices, processes.

Imports no other room; every room may import it.
"""
