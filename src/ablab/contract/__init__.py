"""What crosses between the control plane and the compute plane: typed parameters, orders, events, results, failures.

Everything in Ablab may import this room; it imports nothing of Ablab and no torch. Both planes meet only through
the types here: an order goes down to a worker, events and a result come back through the run folder.
"""
