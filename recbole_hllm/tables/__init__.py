"""Several models under one protocol, side by side in one table."""
