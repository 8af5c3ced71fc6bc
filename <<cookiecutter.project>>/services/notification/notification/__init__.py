"""Mails that follow from events."""
