"""Helpers that are independent of the rest: files, progress, processes, devices."""
