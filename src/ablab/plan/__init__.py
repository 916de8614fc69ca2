"""What must run: the graph of runs with their keys, what is reused, what is left and what it will cost."""
