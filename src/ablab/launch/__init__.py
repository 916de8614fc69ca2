"""Where and when: freezes a launch, starts runs on free slots, supervises them and acts on failures by kind.

Computes nothing itself: a worker gets an order, and what happened is read back from its run folder.
"""
