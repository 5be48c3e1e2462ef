"""Raw files of public data sets, converted to the tables that the program reads; one file for each form."""
