"""What is written and read back: files that appear whole, logs, and the cache."""
