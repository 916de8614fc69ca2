"""The task `command`: arms that differ in the parameters of a program of one's own."""
