"""What is known of the runs of all studies: one folder for each, named by what it was asked to do. Light: no torch."""
