"""x"""
def forecast(plan, store, *, slots=None): pass
