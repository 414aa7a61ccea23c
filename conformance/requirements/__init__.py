"""The requirements of RFC 6455 on an endpoint, with their implementation and tests."""
