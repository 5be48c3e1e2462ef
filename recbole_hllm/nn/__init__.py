"""Building blocks in plain torch and transformers, free of RecBole, configurations and data files."""
