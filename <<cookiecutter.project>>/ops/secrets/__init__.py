"""The secrets of an environment: which exist (catalogue), how they are made (make), kept (files), checked (check).

Making needs the standard library only. No function in this package returns or prints a value in a message.
"""
