"""A file of any kind in, an upright sRGB picture out, or a reason; and the file without personal metadata."""
