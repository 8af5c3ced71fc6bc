"""The service new-service."""
