"""Verbs of the command line, a file each; ``recbole_hllm.cli`` has their table."""
