"""All compiled code, one subject per file: arrays, tuples and scalars in and out; no classes, no raising."""
