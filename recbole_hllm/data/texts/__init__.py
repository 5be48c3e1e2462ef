"""Texts of items: read, made into prompts and tokens, and what is computed from them once."""
