"""One file per recommender, each readable from top to bottom."""
