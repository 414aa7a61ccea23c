"""What RFC 6455 requires of an endpoint, where that is implemented, and which test holds it."""
