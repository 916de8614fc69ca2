"""What is asked: the study file, typed and closed, with errors that name file, line, path and the nearest valid name."""
