"""Merge methods, one file each: functions of the tensors of one name, whole or block by block.

Everything is computed in fp32. Functions whose docstring says so work in place on tensors that the caller owns.
"""
