"""What is asked: the study file, typed and closed; errors name file, line, path and the nearest valid name."""
