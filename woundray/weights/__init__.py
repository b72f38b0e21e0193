"""Model weights on this machine: staged, downloaded, checked by sha256, packed for machines without internet.

A name (`sd21`, `inception`) -> hub or download -> weights folder -> path.
"""
