"""Compiled code, one subject a file: arrays and scalars in, arrays and scalars out; no classes, no raising."""
