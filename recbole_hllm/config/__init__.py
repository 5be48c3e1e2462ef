"""Keys and their values: what users give, where it is read from, and what a run makes of it."""
