"""The server: two gRPC ports and an HTTP port around one engine."""
