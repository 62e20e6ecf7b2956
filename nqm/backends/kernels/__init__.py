"""All compiled code, one subject per file: arrays, tuples and scalars in and out; no raising.

NamedTuples are passed on whole. What Python calls for single rows, thousands of times, takes their fields as a plain
tuple, ``tuple(batch)``, which Numba recognises a microsecond sooner.
"""

__all__: list[str] = []
