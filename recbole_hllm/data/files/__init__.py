"""Files of a data set: RecBole's atomic files as columns."""
