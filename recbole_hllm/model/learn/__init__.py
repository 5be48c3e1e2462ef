"""LEARN (arXiv 2405.03988): content vectors, towers, and a ranker."""
