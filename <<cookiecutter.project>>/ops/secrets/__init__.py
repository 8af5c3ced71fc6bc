"""The secrets of an environment: which exist (catalogue: the stack's, declared: the services'), how
they are made (make), kept (files), checked (check).

No function in this package returns or prints a value in a message.
"""
