"""Processes, certificates and programs for the tests with foreign peers."""
