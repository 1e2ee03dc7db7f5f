"""The gRPC edge: sockets, status codes, threads, streams."""
