"""Changes of what the stack trusts: the rotation of secrets."""
