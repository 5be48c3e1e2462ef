"""What a data set is like, before anything is trained on it: numbers, sentences, and a page with plots."""
